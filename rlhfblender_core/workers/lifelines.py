"""The pipes by which a worker process hears of work and hands in results.

An environment that closes descriptors which aren't its own closes them too, and the numbers are taken by the next
files that are opened: the worker would write its result into one of those and wait for work for ever, and the run for
it. Seen with ``os.closerange(3, 200)``.
"""

import os
import stat
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")


class _Lifelines:
    """Descriptor by number, with what it was when the worker started."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int]] = {}


_lifelines = _Lifelines()


def remember_lifelines() -> None:
    """Notes the pipes and sockets of this process; for a worker's start, before it has others. Linux only."""
    if _DESCRIPTORS.is_dir():
        numbers = [int(path.name) for path in _DESCRIPTORS.iterdir()]
        _lifelines.known = {number: found for number in numbers if (found := _identity(number))}


def end_without_lifelines() -> None:
    """Ends this process where one of them is gone: that is how the run hears that its work is lost."""
    if any(_identity(number) != found for number, found in _lifelines.known.items()):
        os._exit(1)


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    is_line = stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
    return (status.st_dev, status.st_ino) if is_line else None
