"""Text for HTML and scripts, so that no name or info of a data set can become part of the page's code."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias
from urllib.parse import quote

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


def link(path: str) -> str:
    """A relative link from the page's folder to a path below the data root."""
    return "../" + quote(path)
