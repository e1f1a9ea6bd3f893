"""Reads the pickles of others without running anything: a machine of our own for the opcodes, with an allow-list.

Not Python's unpickler: its BUILD writes into whatever lies on the stack, a function of ours as well as a class, and
what it writes stays for the life of the process; and it hashes, copies and reserves without end. Here every opcode and
every copy is paid from a budget, only placeholders can be made, and nothing of ours is reachable.
"""

import io
from typing import Any

from rlhfblender_core.untrusted import limits
from rlhfblender_core.untrusted.allow_list import ALLOWED, unresolved
from rlhfblender_core.untrusted.pickle_machine import Lookup, Persistent, run_pickle
from rlhfblender_core.untrusted.placeholders import DamagedPickleError, RefusedPickleError
from rlhfblender_core.untrusted.unfolding import check_unfolded

#: Raised about damaged input by pickletools, the placeholders and the builders; found by flipping bits.
_DAMAGED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def load_inert(content: bytes) -> Any:
    """What a pickle holds, with placeholders for everything that isn't a plain value.

    Raises:
        RefusedPickleError: it uses a class or function that isn't on the allow-list.
        DamagedPickleError: it is no intact pickle, or asks for too much.
    """
    if len(content) > limits.MAX_PICKLE_BYTES:
        raise DamagedPickleError(f"it has {len(content):,} bytes")
    return load_restricted(io.BytesIO(content), lambda name: ALLOWED.get(name) or unresolved(name))


def load_restricted(
    stream: io.BytesIO, lookup: Lookup, persistent: Persistent | None = None, *, packed: int | None = None
) -> Any:
    """One pickle from the stream, with ``lookup`` deciding what each name means.

    Args:
        stream: at the start of a pickle; afterwards right behind it.
        lookup: gives a class of placeholders or a :class:`Builder` for a (module, name).
        persistent: gives the object for a persistent id; None where there may be none.
        packed: bytes that the pickle has in the file it comes from, where it is compressed there.

    Raises:
        RefusedPickleError: from ``lookup`` or a placeholder.
        DamagedPickleError: it is no intact pickle, or asks for more than its size justifies.
    """
    start = stream.tell()
    size = len(stream.getbuffer()) - start
    paid = limits.WORK_PER_BYTE * size
    if packed is not None:
        paid = min(paid, limits.WORK_PER_PACKED_BYTE * packed)
    work = min(limits.MAX_WORK, limits.SOME_WORK + paid)
    try:
        value = run_pickle(stream, lookup, persistent, work)
        check_unfolded(value, stream.tell() - start)
    except _DAMAGED as error:
        raise DamagedPickleError(" ".join(str(error).split())[:120] or type(error).__name__) from error
    return value


__all__ = ["DamagedPickleError", "RefusedPickleError", "load_inert", "load_restricted"]
