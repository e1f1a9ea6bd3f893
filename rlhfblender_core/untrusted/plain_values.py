"""What an array of objects holds, as plain Python values and arrays, without running anything of it.

The allow-list unpickler gives placeholders; here they become what they stand for, or the file is refused.
"""

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rlhfblender_core.untrusted import limits
from rlhfblender_core.untrusted.allow_list import ALLOWED, Name, unresolved
from rlhfblender_core.untrusted.pickles import DamagedPickleError, RefusedPickleError, load_restricted
from rlhfblender_core.untrusted.placeholders import (
    SET,
    Array,
    ArrayParts,
    BufferArray,
    Dtype,
    Placeholder,
    Scalar,
    checked_shape,
    resolved,
)

_OBJECTS = re.compile(r"\|?O[48]?")
_TEXTS = re.compile(r"[<>=|]?[US]\d{1,6}")
#: As protocol 2 names it.
_OLD_SET: Name = ("__builtin__", "set")


def read_objects(content: bytes, packed: int | None = None) -> list[Any]:
    """The elements of a pickled one-dimensional array of objects.

    Args:
        content: the pickle.
        packed: bytes that it has in the file it comes from, where it is compressed there.

    Raises:
        RefusedPickleError: it uses a class or function that isn't on the allow-list.
        DamagedPickleError: it is no intact pickle of an array of objects, or too large.
    """
    if len(content) > limits.MAX_OBJECTS_BYTES:
        raise DamagedPickleError(f"it has {len(content):,} bytes")
    elements = _plain(load_restricted(io.BytesIO(content), _lookup, packed=packed))
    if not isinstance(elements, list):
        raise DamagedPickleError("it is no array of objects")
    return elements


def _lookup(name: Name) -> Any:
    return SET if name == _OLD_SET else ALLOWED.get(name) or unresolved(name)


def _plain(found: Any) -> Any:
    """The value without placeholders. How far it unfolds was checked when it was read."""
    if isinstance(found, Placeholder):
        return _stood_for(found)
    if isinstance(found, Mapping):
        return _plain_dict(found)
    if isinstance(found, list | tuple):
        return [_plain(entry) for entry in found]
    if isinstance(found, set | frozenset):
        return {_plain_key(entry) for entry in found}
    if found is None or isinstance(found, bool | int | float | complex | str | bytes):
        return found
    raise RefusedPickleError(_name_of(found))


def _plain_dict(found: Mapping[Any, Any]) -> dict[Any, Any]:
    plain = {_plain_key(key): _plain(entry) for key, entry in found.items()}
    if len(plain) != len(found):
        raise DamagedPickleError("it has two keys that are the same number")
    return plain


def _plain_key(key: Any) -> Any:
    """A key, or an element of a set: a text or a number."""
    if isinstance(key, tuple):
        raise DamagedPickleError(f"it has the key {key!r:.60}; keys are texts and numbers here")
    plain = _plain(key)
    if isinstance(plain, list | dict | set | np.ndarray):
        raise DamagedPickleError("it has an array as a key; keys are texts and numbers here")
    return plain


def _stood_for(found: Placeholder) -> Any:
    if not isinstance(found, Array | BufferArray | Scalar):
        raise RefusedPickleError(_name_of(found))
    parts = found.parts()
    code = parts.dtype.code if isinstance(parts.dtype, Dtype) else None
    if isinstance(found, Array) and code is not None and _OBJECTS.fullmatch(code):
        return _objects(parts)
    if code is not None and _TEXTS.fullmatch(code):
        return _texts(parts)
    return resolved(found)


def _objects(parts: ArrayParts) -> Any:
    if not isinstance(parts.content, list):
        raise DamagedPickleError("an array of objects without elements")
    elements = [_plain(entry) for entry in parts.content]
    # RLHF-Blender keeps each step's info in an array of its own that has no dimension.
    return elements[0] if checked_shape(parts.shape) == () and len(elements) == 1 else elements


def _texts(parts: ArrayParts) -> Any:
    real = np.dtype(parts.dtype.code).newbyteorder(">" if parts.dtype.is_big_endian else "=")
    shape = checked_shape(parts.shape)
    try:
        return np.frombuffer(bytes(parts.content), real).reshape(shape).tolist()
    except (TypeError, ValueError) as error:
        raise DamagedPickleError("an array of texts whose parts don't fit together") from error


def _name_of(found: Any) -> str:
    if isinstance(found, Placeholder):
        return ".".join(found.origin)
    if isinstance(found, type) and issubclass(found, Placeholder):
        return ".".join(found.origin)
    return type(found).__name__
