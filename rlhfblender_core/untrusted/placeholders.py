"""Inert values that stand for the classes a pickle may name: they hold what they were given and do nothing.

A real class or function never meets the pickle machine, so there is nothing that a file could call. What is shared
between files (classes, :class:`Builder`) is never changed: the machine (:mod:`.pickles`) sets no attributes; all that a
pickle's BUILD reaches is the state of a placeholder that the same pickle made, and that once.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from rlhfblender_core.untrusted.limits import (
    MAX_ARRAY_BYTES,
    MAX_DIMENSIONS,
    MAX_INTEGER_KEY,
    MAX_KEY_VALUES,
    MAX_SIDE,
)

#: Booleans, integers, floats and complex numbers of a fixed size: no objects, no text, no structures.
_DTYPE = re.compile(r"[<>=|]?(\?|[bBhHiIlLqQefdgFD]|[biu][1248]|f[248]|c8|c16)")
_STATE_PARTS = 5


class RefusedPickleError(Exception):
    """A pickle names something that isn't on the allow-list; the text is its dotted name.

    Args:
        name: as the file has it: what would break the line or change a terminal is replaced.
    """

    def __init__(self, name: str) -> None:
        super().__init__("".join(char if char.isprintable() else "?" for char in name))


class DamagedPickleError(Exception):
    """A pickle doesn't hold what its kind always holds."""


class Builder(NamedTuple):
    """A harmless function that a pickle may call.

    Attributes:
        name: what it stands for.
        make: gives the value for the arguments; may raise anything about them.
    """

    name: str
    make: Callable[..., Any]


class Placeholder:
    """Holds the arguments and the state of what would have been an instance.

    Attributes:
        origin: (module, name) of the class this stands for; set on each subclass.
        args: positional arguments of its constructor.
        state: what BUILD gave it: a dict of attributes for most classes.
    """

    __slots__ = ("_is_built", "args", "state")

    origin: tuple[str, str] = ("", "")

    def __init__(self, args: tuple[Any, ...], state: Any) -> None:
        self.args = args
        self.state = state
        self._is_built = False

    @classmethod
    def made(cls, args: tuple[Any, ...], kwargs: dict[Any, Any]) -> Self:
        """An instance, as a pickle asks for it.

        Raises:
            RefusedPickleError: nothing may be made of this class.
        """
        return cls(args, kwargs)

    def build(self, state: Any) -> None:
        """Sets the state, which nothing honest does twice."""
        if self._is_built:
            raise DamagedPickleError(f"it changes a {self.origin[1]}")
        # Classes with slots pickle (dict, slots).
        self.state = state[0] if isinstance(state, tuple) and state and isinstance(state[0], dict) else state
        self._is_built = True

    def attribute(self, *names: str) -> Any:
        """The first of these attributes that the instance had, None if it had none of them."""
        if not isinstance(self.state, dict):
            return None
        return next((self.state[name] for name in names if self.state.get(name) is not None), None)


class Unresolved(Placeholder):
    """A class or function that isn't on the allow-list: it may be named, where nobody needs it, but not used."""

    __slots__ = ()

    @classmethod
    def made(cls, args: tuple[Any, ...], kwargs: dict[Any, Any]) -> Self:  # noqa: ARG003 (one signature for all)
        """Refused."""
        raise RefusedPickleError(".".join(cls.origin))


class Dtype(Placeholder):
    """``numpy.dtype``."""

    __slots__ = ()

    @property
    def code(self) -> str | None:
        """Its short name, such as ``f8``; None where the pickle has none."""
        code = self.args[0] if self.args else None
        return code if isinstance(code, str) else None

    @property
    def is_big_endian(self) -> bool:
        """Whether the most significant byte comes first."""
        return isinstance(self.state, tuple) and len(self.state) > 1 and self.state[1] == ">"

    def resolve(self) -> np.dtype[Any]:
        """The real one, if it is one of numbers."""
        if self.code is None or not _DTYPE.fullmatch(self.code):
            raise RefusedPickleError(f"a numpy dtype {self.code!r:.40}")
        dtype = np.dtype(self.code)
        return dtype.newbyteorder(">") if self.is_big_endian else dtype


class ArrayParts(NamedTuple):
    """What an array is made of, as the pickle has it: any of it may be anything."""

    content: Any
    dtype: Any
    shape: Any
    order: str


class Array(Placeholder):
    """An array whose bytes come as BUILD's state, ``numpy.core.multiarray._reconstruct``."""

    __slots__ = ()

    def parts(self) -> ArrayParts:
        """Its parts."""
        if not isinstance(self.state, tuple) or len(self.state) != _STATE_PARTS:
            raise DamagedPickleError("an array without contents")
        _, shape, dtype, is_fortran, content = self.state
        return ArrayParts(content, dtype, shape, "F" if is_fortran is True else "C")


class BufferArray(Placeholder):
    """An array made from bytes in one go, ``numpy.core.numeric._frombuffer``."""

    __slots__ = ()

    def parts(self) -> ArrayParts:
        """Its parts."""
        content, dtype, shape, order = (*self.args[:4], None, None, None, "C")[:4]
        return ArrayParts(content, dtype, shape, "F" if order == "F" else "C")


class Scalar(Placeholder):
    """``numpy.core.multiarray.scalar``."""

    __slots__ = ()

    def parts(self) -> ArrayParts:
        """Its parts, as an array of shape ()."""
        dtype, content = (*self.args[:2], None, None)[:2]
        return ArrayParts(content, dtype, (), "C")


def resolved(value: Any) -> Any:
    """The array or number that a placeholder stands for; other values as they are.

    Raises:
        DamagedPickleError: an array's parts don't fit together.
        RefusedPickleError: an array isn't one of numbers.
    """
    if isinstance(value, Scalar):
        return numbers_of(value.parts()).item()
    if isinstance(value, Array | BufferArray):
        return numbers_of(value.parts())
    return value.resolve() if isinstance(value, Dtype) else value


def numbers_of(parts: ArrayParts) -> npt.NDArray[Any]:
    """The array of numbers that has these parts.

    Raises:
        DamagedPickleError: they don't fit together.
        RefusedPickleError: it isn't one of numbers.
    """
    if not isinstance(parts.content, bytes | bytearray) or not isinstance(parts.dtype, Dtype):
        raise DamagedPickleError("an array whose contents are no bytes")
    real = parts.dtype.resolve()
    shape = checked_shape(parts.shape)
    size = real.itemsize
    for side in shape:
        size *= side
    if size != len(parts.content) or size > MAX_ARRAY_BYTES:
        raise DamagedPickleError(f"an array of shape {shape} with {len(parts.content)} bytes")
    flat = np.frombuffer(bytes(parts.content), real)
    return flat.reshape(shape, order="F" if parts.order == "F" else "C")


def checked_shape(shape: Any) -> tuple[int, ...]:
    """The shape, which may be anything.

    Raises:
        DamagedPickleError: it is no tuple of a few whole numbers.
    """
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise DamagedPickleError("an array without a shape")
    if not all(type(side) is int and 0 <= side <= MAX_SIDE for side in shape):
        raise DamagedPickleError("an array of an impossible shape")
    return shape


def checked_key(value: Any) -> Any:
    """The value, which becomes a key or an element of a set: hashing it costs little, and it can't be made to collide.

    Raises:
        DamagedPickleError: it is a list, say, or a tuple that unfolds to very many values.
    """
    waiting, seen = [value], 0
    while waiting:
        part = waiting.pop()
        seen += 1
        if isinstance(part, tuple) and len(part) <= MAX_KEY_VALUES:
            waiting += part
        elif isinstance(part, int) and not -MAX_INTEGER_KEY <= part <= MAX_INTEGER_KEY:
            raise DamagedPickleError("a key that is a very large number")
        elif not (part is None or isinstance(part, str | bytes | int | float | complex | Placeholder | type)):
            raise DamagedPickleError(f"a key that is a {type(part).__name__}")
        if seen > MAX_KEY_VALUES:
            raise DamagedPickleError("a key of very many values")
    return value


def _dict_of(pairs: Any = ()) -> dict[Any, Any]:
    """Stands for ``OrderedDict``; Python's own dict keeps the order, and has no attributes that a pickle could set."""
    entries = dict.items(pairs) if isinstance(pairs, dict) else pairs
    return {checked_key(key): value for key, value in entries}


def _set_of(elements: Any = ()) -> set[Any]:
    return {checked_key(element) for element in elements}


def _bytes_of(text: Any, encoding: Any) -> bytes:
    """Stands for ``_codecs.encode``, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise DamagedPickleError("an unusual encoding of bytes")
    return text.encode("latin1")


ORDERED_DICT = Builder("OrderedDict", _dict_of)
SET = Builder("set", _set_of)
ENCODED_BYTES = Builder("encode", _bytes_of)
