"""The ``info`` of a step as JSON text, so that it loads without pickles and nothing in it is lost silently."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlhfblender_core.untrusted.json_values import DamagedJsonError, parse_json
from rlhfblender_core.untrusted.npy import DamagedArrayError

#: In the ``repr`` of most objects; another one in every run, which would make the same episode other bytes.
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def info_to_json(info: object) -> str:
    """A JSON object in one line. Arrays become lists, NumPy scalars numbers, keys text; what JSON lacks, its ``repr``.

    NaN and infinities are written as ``NaN`` and ``Infinity``, as Python's ``json`` reads them. What an environment
    returns instead of a dictionary is kept under ``info``; None is an empty one.
    """
    if not isinstance(info, Mapping):
        info = {} if info is None else {"info": info}
    if not info:
        return "{}"
    try:
        return _encode(info)
    except (TypeError, ValueError, RecursionError):  # keys that aren't text, or a structure that contains itself
        return _encode(_with_text_keys(info, depth=8))


def info_from_json(text: object, constant: Callable[[str], Any] | None = None) -> dict[str, Any]:
    """The inverse of :func:`info_to_json`, of a file that may be somebody's.

    Args:
        text: a row of ``infos``.
        constant: see :func:`rlhfblender_core.untrusted.json_values.parse_json`.

    Raises:
        DamagedArrayError: it is no text, or no object in JSON, or one that asks for too much.
    """
    if text == "{}":
        return {}
    try:
        info = parse_json(text, constant=constant) if isinstance(text, str) else None
    except DamagedJsonError as error:
        raise DamagedArrayError(f"infos has a row that {error}") from error
    if not isinstance(info, dict):
        raise DamagedArrayError("infos has a row that is no JSON object")
    return info


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist() if not value.dtype.hasobject else [_repr(element) for element in value.ravel()]
    if isinstance(value, np.generic):
        number = value.item()
        return _repr(value) if isinstance(number, np.generic) else number  # a longdouble's item is a longdouble
    if isinstance(value, set | frozenset):
        return sorted(value, key=_repr)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return _repr(value)


#: Made once: ``json.dumps`` makes an encoder at every call.
_encode = json.JSONEncoder(default=_plain, separators=(",", ":")).encode


def _repr(value: object) -> str:
    try:
        return _ADDRESS.sub("", repr(value))
    except Exception:  # noqa: BLE001 (it is somebody else's, or of something nested too deeply)
        return f"<{type(value).__qualname__}>"


def _with_text_keys(value: object, depth: int) -> object:
    if depth == 0:
        return _repr(value)
    if isinstance(value, Mapping):
        return {_text_key(key): _with_text_keys(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_text_keys(inner, depth - 1) for inner in value]
    return value


def _text_key(key: object) -> str:
    return key if isinstance(key, str) else _ADDRESS.sub("", str(key))
