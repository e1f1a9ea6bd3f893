"""Inert values that stand for the classes a pickle may name: they hold what they were given and do nothing.

A real class or function never meets the pickle machine, so there is nothing that a file could call.
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_ARRAY_BYTES = 64 * 2**20

#: Booleans, integers, floats and complex numbers of a fixed size: no objects, no text, no structures.
_DTYPE = re.compile(r"[<>=|]?(\?|[bBhHiIlLqQefdgFD]|[biu][1248]|f[248]|c8|c16)")


class RefusedPickleError(Exception):
    """A pickle names something that isn't on the allow-list; the text is its dotted name."""


class DamagedPickleError(Exception):
    """A pickle doesn't hold what its kind always holds."""


class _Frozen(type):
    """Classes whose attributes a pickle's BUILD can't set."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise DamagedPickleError(f"it changes {cls.__name__}")


class StandIn(metaclass=_Frozen):
    """Holds the arguments and the state of what would have been an instance.

    Attributes:
        origin: (module, name) of the class this stands for; set on each subclass.
        args: positional arguments of its constructor.
        state: what BUILD gave it: a dict of attributes for most classes.
    """

    origin: tuple[str, str] = ("", "")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> "StandIn":  # noqa: D102
        made = object.__new__(cls)
        made.args = args
        made.state = dict(kwargs)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # everything was done in __new__
        pass

    def __setstate__(self, state: Any) -> None:
        # Classes with slots pickle (dict, slots).
        self.state = state[0] if isinstance(state, tuple) and state and isinstance(state[0], dict) else state

    def attribute(self, *names: str) -> Any:
        """The first of these attributes that the instance had, None if it had none of them."""
        if not isinstance(self.state, dict):
            return None
        return next((self.state[name] for name in names if self.state.get(name) is not None), None)


class Unresolved(StandIn):
    """A class or function that isn't on the allow-list: it may be named, where nobody needs it, but not used."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Unresolved":  # noqa: ARG004, D102
        raise RefusedPickleError(".".join(cls.origin))


class Dtype(StandIn):
    """``numpy.dtype``."""

    def resolve(self) -> np.dtype[Any]:
        """The real one, if it is one of numbers."""
        code = self.args[0] if self.args else None
        if not isinstance(code, str) or not _DTYPE.fullmatch(code):
            raise RefusedPickleError(f"a numpy dtype {code!r:.40}")
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        dtype = np.dtype(code)
        return dtype.newbyteorder(">") if order == ">" else dtype


class Array(StandIn):
    """An array whose bytes come as BUILD's state, ``numpy.core.multiarray._reconstruct``."""

    def resolve(self) -> npt.NDArray[Any]:
        """The real one."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:  # noqa: PLR2004 - numpy's format
            raise DamagedPickleError("an array without contents")
        _, shape, dtype, fortran, content = self.state
        return _array(content, dtype, shape, "F" if fortran is True else "C")


class BufferArray(StandIn):
    """An array made from bytes in one go, ``numpy.core.numeric._frombuffer``."""

    def resolve(self) -> npt.NDArray[Any]:
        """The real one."""
        content, dtype, shape, order = (*self.args, "C")[:4]
        return _array(content, dtype, shape, order)


class Scalar(StandIn):
    """``numpy.core.multiarray.scalar``."""

    def resolve(self) -> npt.NDArray[Any]:
        """The real one, as an array of shape ()."""
        return _array(self.args[1], self.args[0], (), "C")


class EncodedBytes(StandIn):
    """``_codecs.encode``, by which protocol 2 writes bytes."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG004, D102
        if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":  # noqa: PLR2004
            raise DamagedPickleError("an unusual encoding of bytes")
        return args[0].encode("latin1")


def resolved(value: Any) -> Any:
    """The array or number that a stand-in stands for; other values as they are.

    Raises:
        DamagedPickleError: an array's parts don't fit together.
        RefusedPickleError: an array isn't one of numbers.
    """
    if isinstance(value, Scalar):
        return value.resolve().item()
    if isinstance(value, (Array, BufferArray, Dtype)):
        return value.resolve()
    return value


def _array(content: Any, dtype: Any, shape: Any, order: str) -> npt.NDArray[Any]:
    if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, Dtype):
        raise DamagedPickleError("an array whose contents are no bytes")
    real = dtype.resolve()
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise DamagedPickleError("an array without a shape")
    size = real.itemsize
    for side in shape:
        size *= side
    if size != len(content) or size > MAX_ARRAY_BYTES:
        raise DamagedPickleError(f"an array of shape {shape} with {len(content)} bytes")
    flat = np.frombuffer(bytes(content), real)
    return flat.reshape(shape, order="F" if order == "F" else "C")
