"""What an array of objects holds, as plain Python values and arrays, without running anything of it.

The allow-list unpickler gives placeholders; here they become what they stand for, or the file is refused.
"""

import io
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from rlhfblender_core.untrusted import limits
from rlhfblender_core.untrusted.allow_list import ALLOWED, Name, placeholder, unresolved
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
    numbers_of,
    resolved,
)

_OBJECTS = re.compile(r"\|?O[48]?")
_TEXTS = re.compile(r"[<>=|]?[US]\d{1,6}")
#: As protocol 2 names it.
_OLD_SET: Name = ("__builtin__", "set")

#: Classes of objects that states of environments consist of, by what stands for them.
STATE_CLASSES: Mapping[Name, type[Placeholder]] = MappingProxyType(
    {
        name: placeholder(name)
        for name in (
            ("types", "SimpleNamespace"),
            ("minigrid.core.grid", "Grid"),
            *(
                ("minigrid.core.world_object", thing)
                for thing in ("Ball", "Box", "Door", "Floor", "Goal", "Key", "Lava", "Wall")
            ),
        )
    }
)


def read_objects(content: bytes, packed: int | None = None) -> list[Any]:
    """The elements of a pickled one-dimensional array of objects.

    Args:
        content: the pickle.
        packed: bytes that it has in the file it comes from, where it is compressed there.

    Raises:
        RefusedPickleError: it uses a class or function that isn't on the allow-list.
        DamagedPickleError: it is no intact pickle of an array of objects, or too large.
    """
    elements = _plain(_loaded(content, packed, _lookup))
    if not isinstance(elements, list):
        raise DamagedPickleError("it is no array of objects")
    return elements


def read_state_objects(content: bytes, packed: int | None = None) -> list[Any]:
    """The elements of a pickled array of objects, flat, with placeholders for what is no plain value.

    Args:
        content: the pickle.
        packed: see :func:`read_objects`.

    Raises:
        RefusedPickleError, DamagedPickleError: see :func:`read_objects`; objects may be of :data:`STATE_CLASSES`, too.
    """
    found = _loaded(content, packed, lambda name: STATE_CLASSES.get(name) or _lookup(name))
    parts = found.parts() if isinstance(found, Array) else None
    if parts is None or not isinstance(parts.content, list):
        raise DamagedPickleError("it is no array of objects")
    return parts.content


def _loaded(content: bytes, packed: int | None, lookup: Callable[[Name], Any]) -> Any:
    if len(content) > limits.MAX_OBJECTS_BYTES:
        raise DamagedPickleError(f"it has {len(content):,} bytes")
    return load_restricted(io.BytesIO(content), lookup, packed=packed)


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
    raise RefusedPickleError(object_name(found))


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
        raise RefusedPickleError(object_name(found))
    parts = found.parts()
    code = parts.dtype.code if isinstance(parts.dtype, Dtype) else None
    if isinstance(found, Array) and code is not None and _OBJECTS.fullmatch(code):
        return _objects(parts)
    if code is not None and _TEXTS.fullmatch(code):
        return _texts(parts).tolist()
    return resolved(found)


def array_of(found: Placeholder) -> np.ndarray[Any, np.dtype[Any]] | None:
    """The array of numbers or texts that a placeholder stands for, of no dimension for a scalar; None for another.

    Raises:
        DamagedPickleError, RefusedPickleError: its parts don't fit together, or it holds objects.
    """
    if not isinstance(found, Array | BufferArray | Scalar):
        return None
    parts = found.parts()
    code = parts.dtype.code if isinstance(parts.dtype, Dtype) else None
    return _texts(parts) if code is not None and _TEXTS.fullmatch(code) else numbers_of(parts)


def _objects(parts: ArrayParts) -> Any:
    if not isinstance(parts.content, list):
        raise DamagedPickleError("an array of objects without elements")
    elements = [_plain(entry) for entry in parts.content]
    # RLHF-Blender keeps each step's info in an array of its own that has no dimension.
    return elements[0] if checked_shape(parts.shape) == () and len(elements) == 1 else elements


def _texts(parts: ArrayParts) -> np.ndarray[Any, np.dtype[Any]]:
    real = np.dtype(parts.dtype.code).newbyteorder(">" if parts.dtype.is_big_endian else "=")
    shape = checked_shape(parts.shape)
    try:
        return np.frombuffer(bytes(parts.content), real).reshape(shape)
    except (TypeError, ValueError) as error:
        raise DamagedPickleError("an array of texts whose parts don't fit together") from error


def object_name(found: Any) -> str:
    """What it is, by its dotted name."""
    if isinstance(found, Placeholder):
        return ".".join(found.origin)
    if isinstance(found, type) and issubclass(found, Placeholder):
        return ".".join(found.origin)
    return type(found).__name__
