"""How much a value is with everything that is shared in it written out, found without writing it out.

A pickle can name the same list again and again: 322 bytes become 20⁷ values for whoever walks through them. Once this
has passed, every walk through the value is short.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from rlhfblender_core.untrusted import limits
from rlhfblender_core.untrusted.placeholders import DamagedPickleError, Placeholder

_ATOM_BYTES = 64


class _Extent(NamedTuple):
    values: int
    content: int
    height: int


def check_unfolded(value: Any, size: int) -> None:
    """Makes sure that a value from a pickle of ``size`` bytes is no more than such a pickle honestly holds.

    Raises:
        DamagedPickleError: it contains itself, is nested too deeply, or holds too many values or bytes.
    """
    extent = _Unfolding().extent(value, 0)
    if extent.values > min(limits.MAX_VALUES, limits.SOME_VALUES + limits.VALUES_PER_BYTE * size):
        raise DamagedPickleError(f"it holds too many values: {size:,} bytes unfold to {extent.values:,}")
    if extent.content > limits.SOME_SHARED_BYTES + limits.SHARED_PER_BYTE * size:
        raise DamagedPickleError(f"it holds too many bytes: {size:,} unfold to {extent.content:,}")


class _Unfolding:
    """Extents by object, so that each object is looked at once."""

    def __init__(self) -> None:
        self._known: dict[int, _Extent | None] = {}

    def extent(self, value: Any, depth: int) -> _Extent:
        if isinstance(value, str | bytes | bytearray):
            return _Extent(1, len(value) if len(value) > _ATOM_BYTES else 0, 0)
        parts = _parts(value)
        if parts is None:
            return _Extent(1, 0, 0)
        if id(value) not in self._known:
            if depth > limits.MAX_DEPTH:
                raise DamagedPickleError("it is nested too deeply")
            self._known[id(value)] = None
            self._known[id(value)] = self._sum(parts, depth)
        found = self._known[id(value)]
        if found is None:
            raise DamagedPickleError("it contains itself: it is nested too deeply")
        if depth + found.height > limits.MAX_DEPTH:
            raise DamagedPickleError("it is nested too deeply")
        return found

    def _sum(self, parts: Iterable[Any], depth: int) -> _Extent:
        values, content, height = 1, 0, 0
        for part in parts:
            inner = self.extent(part, depth + 1)
            values += inner.values
            content += inner.content
            height = max(height, inner.height)
        return _Extent(values, content, height + 1)


def _parts(value: Any) -> Iterable[Any] | None:
    """What it holds; None of what holds nothing."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return value
    return (value.args, value.state) if isinstance(value, Placeholder) else None
