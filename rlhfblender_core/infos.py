"""The ``info`` of a step as JSON text, so that it loads without pickles and nothing in it is lost silently."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np


def info_to_json(info: Mapping[str, Any]) -> str:
    """One line of JSON. Arrays become lists, NumPy scalars numbers, keys text; what JSON has no form for its ``repr``.

    NaN and infinities are written as ``NaN`` and ``Infinity``, as Python's ``json`` reads them.
    """
    if not info:
        return "{}"
    try:
        return json.dumps(info, default=_plain, separators=(",", ":"))
    except (TypeError, ValueError):  # keys that aren't text, or a structure that contains itself
        return json.dumps(_with_text_keys(info, depth=8), default=_plain, separators=(",", ":"))


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist() if not value.dtype.hasobject else [repr(element) for element in value.ravel()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return repr(value)


def _with_text_keys(value: object, depth: int) -> object:
    if depth == 0:
        return repr(value)
    if isinstance(value, Mapping):
        return {str(key): _with_text_keys(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(inner, depth - 1) for inner in value]
    return value
