"""Reads the pickles in checkpoints without running anything: an unpickler with an allow-list.

Every class and function is matched by its exact (module, name) and replaced by an inert stand-in.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

from rlhfblender_core.untrusted.allow_list import ALLOWED, Name, unresolved
from rlhfblender_core.untrusted.placeholders import DamagedPickleError, RefusedPickleError

MAX_PICKLE_BYTES = 64 * 2**20

#: Raised on damaged input by pickle, pickletools and our stand-ins; found by flipping bits.
_DAMAGED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NameError,
    RecursionError,
    SystemError,
    TypeError,
    ValueError,
)

Lookup = Callable[[Name], Any]


def load_inert(content: bytes) -> Any:
    """What a pickle holds, with stand-ins for everything that isn't a plain value.

    Raises:
        RefusedPickleError: it uses a class or function that isn't on the allow-list.
        DamagedPickleError: it is no intact pickle, or is too large.
    """
    if len(content) > MAX_PICKLE_BYTES:
        raise DamagedPickleError(f"it has {len(content):,} bytes")
    return load_restricted(io.BytesIO(content), lambda name: ALLOWED.get(name) or unresolved(name))


def load_restricted(
    stream: io.BytesIO, lookup: Lookup, persistent: Callable[[Any], Any] | None = None, *, limit: int | None = None
) -> Any:
    """One pickle from the stream, with ``lookup`` deciding what each name means.

    Args:
        stream: at the start of a pickle; afterwards right behind it.
        lookup: gives the object for a (module, name).
        persistent: gives the object for a persistent id; None where there may be none.
        limit: bytes that the pickle may have, None for all that is left.

    Raises:
        RefusedPickleError: from ``lookup`` or a stand-in.
        DamagedPickleError: it is no intact pickle.
    """
    try:
        content = _checked(stream, limit)
        return _Unpickler(io.BytesIO(content), lookup, persistent).load()
    except _DAMAGED as error:
        raise DamagedPickleError(" ".join(str(error).split())[:120] or type(error).__name__) from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, lookup: Lookup, persistent: Callable[[Any], Any] | None) -> None:
        super().__init__(file)
        self._lookup = lookup
        self._persistent = persistent

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        return self._lookup((module_name, global_name))

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent is None:
            raise DamagedPickleError("it refers to something outside")
        return self._persistent(pid)


def _checked(stream: io.BytesIO, limit: int | None) -> bytes:
    """The bytes of one pickle, once it is known that reading it needs no more memory than its size.

    The C unpickler reserves memory for the largest memo index before it reads on: one opcode could ask for gigabytes.
    """
    start = stream.tell()
    size = len(stream.getbuffer()) - start
    window = stream if limit is None or size <= limit else io.BytesIO(stream.read(limit))
    origin = window.tell()
    for opcode, argument, _ in pickletools.genops(window):
        if opcode.name in {"PUT", "BINPUT", "LONG_BINPUT"} and isinstance(argument, int) and argument > size:
            raise DamagedPickleError("a memo index that is out of range")
    length = window.tell() - origin
    stream.seek(start)
    return stream.read(length)


__all__ = ["DamagedPickleError", "RefusedPickleError", "load_inert", "load_restricted"]
