"""What an array of objects holds, as plain Python values and arrays, without running anything of it.

The allow-list unpickler gives stand-ins; here they become what they stand for, or the file is refused.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlhfblender_core.untrusted.allow_list import ALLOWED, unresolved
from rlhfblender_core.untrusted.pickles import DamagedPickleError, RefusedPickleError, load_restricted
from rlhfblender_core.untrusted.placeholders import Array, BufferArray, Dtype, Scalar, StandIn, resolved

#: Pickled infos of 100,000 steps have some 20 MB.
_MAX_BYTES = 1 << 30
_MAX_DEPTH = 32
#: Values that a pickle may unfold to, by its size and at most: a small one can name the same list again and again.
_VALUES_PER_BYTE, _SOME_VALUES, _MAX_VALUES = 32, 100_000, 10_000_000
_OBJECTS = re.compile(r"\|?O[48]?")
_TEXTS = re.compile(r"[<>=|]?[US]\d{1,6}")
_STATE_PARTS = 5
#: As protocol 2 names it.
_ALLOWED = {**ALLOWED, ("__builtin__", "set"): set}


def read_objects(content: bytes) -> list[Any]:
    """The elements of a pickled one-dimensional array of objects.

    Raises:
        RefusedPickleError: it uses a class or function that isn't on the allow-list.
        DamagedPickleError: it is no intact pickle of an array of objects, or too large.
    """
    if len(content) > _MAX_BYTES:
        raise DamagedPickleError(f"it has {len(content):,} bytes")
    found = load_restricted(io.BytesIO(content), lambda name: _ALLOWED.get(name) or unresolved(name))
    elements = _Plain(min(_MAX_VALUES, _SOME_VALUES + _VALUES_PER_BYTE * len(content))).value(found)
    if not isinstance(elements, list):
        raise DamagedPickleError("it is no array of objects")
    return elements


class _Plain:
    """Turns stand-ins into values, and counts them."""

    def __init__(self, most: int) -> None:
        self._left = most

    def value(self, found: Any, depth: int = 0) -> Any:
        self._left -= 1
        if depth > _MAX_DEPTH or self._left < 0:
            raise DamagedPickleError("it is nested too deeply or holds too many values")
        if isinstance(found, StandIn):
            return self._stood_for(found, depth)
        if isinstance(found, Mapping):
            return {self.value(key, depth + 1): self.value(entry, depth + 1) for key, entry in found.items()}
        if isinstance(found, list | tuple):
            return [self.value(entry, depth + 1) for entry in found]
        if isinstance(found, set):
            return {self.value(entry, depth + 1) for entry in found}
        if found is None or isinstance(found, bool | int | float | complex | str | bytes):
            return found
        raise RefusedPickleError(_name_of(found))

    def _stood_for(self, found: StandIn, depth: int) -> Any:
        if isinstance(found, Array) and _is_of(found, _OBJECTS):
            return self._objects(found, depth)
        if isinstance(found, Array | BufferArray | Scalar) and _is_of(found, _TEXTS):
            return _texts(found)
        if isinstance(found, Array | BufferArray | Scalar):
            return resolved(found)
        raise RefusedPickleError(_name_of(found))

    def _objects(self, found: Array, depth: int) -> Any:
        _, shape, _, _, content = found.state
        if not isinstance(shape, tuple) or not isinstance(content, list):
            raise DamagedPickleError("an array of objects without elements")
        elements = [self.value(entry, depth + 1) for entry in content]
        # RLHF-Blender keeps each step's info in an array of its own that has no dimension.
        return elements[0] if shape == () and len(elements) == 1 else elements


def _parts(found: Array | BufferArray | Scalar) -> tuple[Any, Any, Any]:
    """Bytes, dtype and shape; None where they are missing."""
    if isinstance(found, Scalar):
        return (*reversed(found.args[:2]), ()) if len(found.args) >= 2 else (None, None, None)  # noqa: PLR2004 (numpy's)
    if isinstance(found, BufferArray):
        return (*found.args, None, None, None)[:3]
    state = (
        found.state if isinstance(found.state, tuple) and len(found.state) == _STATE_PARTS else (None,) * _STATE_PARTS
    )
    return state[4], state[2], state[1]


def _is_of(found: Array | BufferArray | Scalar, code: re.Pattern[str]) -> bool:
    _, dtype, _ = _parts(found)
    given = dtype.args[0] if isinstance(dtype, Dtype) and dtype.args else None
    return isinstance(given, str) and code.fullmatch(given) is not None


def _texts(found: Array | BufferArray | Scalar) -> Any:
    content, dtype, shape = _parts(found)
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    real = np.dtype(dtype.args[0]).newbyteorder(">" if order == ">" else "=")
    try:
        return np.frombuffer(bytes(content), real).reshape(shape).tolist()
    except (TypeError, ValueError) as error:
        raise DamagedPickleError("an array of texts whose parts don't fit together") from error


def _name_of(found: Any) -> str:
    if isinstance(found, StandIn):
        return ".".join(found.origin)
    if isinstance(found, type) and issubclass(found, StandIn):
        return ".".join(found.origin)
    return type(found).__name__
