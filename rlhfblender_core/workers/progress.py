"""How far a run's workers have got, counted without queues and locks: a killed one can neither block nor corrupt it."""

import contextlib
import mmap
import os
import struct
import threading
from pathlib import Path

from rlhfblender_core.errors import RunStoppedError

#: Steps and episodes done, as two native 64-bit integers.
_COUNTERS = struct.Struct("=qq")


class ProgressCounter:
    """Steps and episodes done by one process, in a small mapped file that another process reads."""

    def __init__(self, path: Path, stopped: threading.Event | None = None) -> None:
        self._stopped = stopped
        with path.open("wb+") as stream:
            stream.write(_COUNTERS.pack(0, 0))
            stream.flush()
            self._map = mmap.mmap(stream.fileno(), _COUNTERS.size)
        self._steps = 0
        self._episodes = 0

    def add(self, *, steps: int = 0, episodes: int = 0) -> None:
        """Counts what was just done.

        Raises:
            RunStoppedError: the run was stopped. Processes can be ended, a thread has to be told.
        """
        if self._stopped is not None and self._stopped.is_set():
            raise RunStoppedError("The run was stopped.")
        self._steps += steps
        self._episodes += episodes
        _COUNTERS.pack_into(self._map, 0, self._steps, self._episodes)


def read_progress(folder: Path) -> tuple[int, int]:
    """Steps and episodes done by all processes that count into the folder."""
    steps = episodes = 0
    for path in folder.glob("*.progress"):
        with contextlib.suppress(struct.error, FileNotFoundError):
            done = _COUNTERS.unpack(path.read_bytes())
            steps, episodes = steps + done[0], episodes + done[1]
    return steps, episodes


class _Counting(threading.local):
    """The counter of the thread that does a run's work; it ends with the thread, and so does a run's stop."""

    counter: ProgressCounter | None = None


_counting = _Counting()


def start_counter(folder: Path, stopped: threading.Event | None = None) -> None:
    """Has :func:`count_progress` in this thread count into the folder, until the event is set."""
    _counting.counter = ProgressCounter(folder / f"{os.getpid()}-{threading.get_ident()}.progress", stopped)


def count_progress(*, steps: int = 0, episodes: int = 0) -> None:
    """Counts steps and episodes of this thread, where somebody counts.

    Raises:
        RunStoppedError: the run was stopped; a process can be ended from outside, a thread has to ask.
    """
    if _counting.counter is not None:
        _counting.counter.add(steps=steps, episodes=episodes)
