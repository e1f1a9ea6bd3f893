"""Text for HTML and scripts, so that no name or info of a data set can become part of the page's code."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

#: Ends a script element, starts a comment, or ends a line in old scripts.
_UNSAFE = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def script_json(value: JsonValue) -> str:
    """The value as JSON that is safe inside a ``<script>`` element and in a script file."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "".join(_UNSAFE.get(character, character) for character in text) if _has_unsafe(text) else text


def _has_unsafe(text: str) -> bool:
    return any(character in text for character in _UNSAFE)


def escaped(text: str) -> str:
    """The text for HTML, in elements and in quoted attributes."""
    return html.escape(text, quote=True)


def number(value: object) -> float | None:
    """A finite number as JSON has it; None for what JSON has no form for."""
    if not isinstance(value, int | float | np.number) or not math.isfinite(value):
        return None
    return float(value)
