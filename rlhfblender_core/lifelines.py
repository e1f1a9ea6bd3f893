"""The pipes and sockets by which this process hears of work and is heard: without them it can't go on.

An environment that closes descriptors which aren't its own closes them too, and their numbers are taken by the next
files that are opened: a worker would write its result into one of those and wait for work for ever, and the run for
it; a command would wait for its own threads. Seen with ``os.closerange(3, 200)``.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

_DESCRIPTORS = Path("/proc/self/fd")
#: As it is here: environments' calls of it are refused (:mod:`rlhfblender_core.environments.contained`).
_exit = os._exit


class _Lifelines:
    """Descriptor by number, with what it was when it was noted."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int]] = {}


_lifelines = _Lifelines()


def remember_lifelines(numbers: Iterable[int] | None = None) -> None:
    """Notes descriptors of this process in the place of those that were noted before.

    Args:
        numbers: of pipes or sockets that stay open; None for all that there are, which is for a worker's start, before
            it has others. Linux only.
    """
    if numbers is None:
        numbers = [int(path.name) for path in _DESCRIPTORS.iterdir()] if _DESCRIPTORS.is_dir() else []
    _lifelines.known = {number: found for number in numbers if (found := _identity(number))}


def end_without_lifelines() -> None:
    """Ends this process where one of them is gone: that is how others hear that its work is lost."""
    if any(_identity(number) != found for number, found in _lifelines.known.items()):
        _exit(1)


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    is_line = stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
    return (status.st_dev, status.st_ino) if is_line else None
