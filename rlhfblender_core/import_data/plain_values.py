"""What an array of objects holds, as plain Python values and arrays, without running anything of it.

The allow-list unpickler gives stand-ins; here they become what they stand for, or the file is refused.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlhfblender_core.checkpoints.allow_list import ALLOWED, unresolved
from rlhfblender_core.checkpoints.pickles import DamagedPickleError, RefusedPickleError, load_restricted
from rlhfblender_core.checkpoints.stand_ins import Array, BufferArray, Dtype, Scalar, StandIn, resolved

#: Pickled infos of 100,000 steps have some 20 MB.
_MAX_BYTES = 1 << 30
_MAX_DEPTH = 32
#: Values that a pickle may unfold to: small pickles can name the same list again and again.
_MAX_VALUES = 20_000_000
_OBJECTS = re.compile(r"\|?O[48]?")
_TEXTS = re.compile(r"[<>=|]?[US]\d{1,6}")
_STATE_PARTS = 5


def read_objects(content: bytes) -> list[Any]:
    """The elements of a pickled one-dimensional array of objects.

    Raises:
        RefusedPickleError: it uses a class or function that isn't on the allow-list.
        DamagedPickleError: it is no intact pickle of an array of objects, or too large.
    """
    if len(content) > _MAX_BYTES:
        raise DamagedPickleError(f"it has {len(content):,} bytes")
    found = load_restricted(io.BytesIO(content), lambda name: ALLOWED.get(name) or unresolved(name))
    elements = _Plain().value(found)
    if not isinstance(elements, list):
        raise DamagedPickleError("it is no array of objects")
    return elements


class _Plain:
    """Turns stand-ins into values, and counts them."""

    def __init__(self) -> None:
        self._left = _MAX_VALUES

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
        if isinstance(found, Array | Scalar) and _is_of(found, _TEXTS):
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


def _dtype_of(found: Array | Scalar) -> Any:
    if isinstance(found, Scalar):
        return found.args[0] if found.args else None
    state = found.state
    return state[2] if isinstance(state, tuple) and len(state) == _STATE_PARTS else None


def _is_of(found: Array | Scalar, code: re.Pattern[str]) -> bool:
    dtype = _dtype_of(found)
    given = dtype.args[0] if isinstance(dtype, Dtype) and dtype.args else None
    return isinstance(given, str) and code.fullmatch(given) is not None


def _texts(found: Array | Scalar) -> Any:
    dtype = _dtype_of(found)
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    real = np.dtype(dtype.args[0]).newbyteorder(">" if order == ">" else "=")
    shape = () if isinstance(found, Scalar) else found.state[1]
    content = found.args[1] if isinstance(found, Scalar) else found.state[4]
    try:
        return np.frombuffer(content, real).reshape(shape).tolist()
    except (TypeError, ValueError) as error:
        raise DamagedPickleError("an array of texts whose parts don't fit together") from error


def _name_of(found: Any) -> str:
    if isinstance(found, StandIn):
        return ".".join(found.origin)
    if isinstance(found, type) and issubclass(found, StandIn):
        return ".".join(found.origin)
    return type(found).__name__
