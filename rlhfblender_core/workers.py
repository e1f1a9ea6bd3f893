"""Where shards are rolled out on this machine: in this process, or in a pool of worker processes.

Prefect's own process runner isn't used: each of its workers would start a temporary server, and one killed worker
fails every unfinished task for good. Here a task hands its work to the pool and waits; when a worker dies the pool is
dropped and each waiting task raises :class:`WorkerLostError`, which an ordinary task retry mends.
"""

import contextlib
import mmap
import multiprocessing
import os
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec, TypeVar

from rlhfblender_core.errors import RunStoppedError, WorkerLostError

P = ParamSpec("P")
R = TypeVar("R")

#: Steps and episodes done, as two native 64-bit integers.
_COUNTERS = struct.Struct("=qq")


class ProgressCounter:
    """Steps and episodes done by one process, in a small mapped file that another process reads.

    No queue and no lock, so that a killed worker can neither block nor corrupt anything.
    """

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


class Workers:
    """Runs functions in worker processes, or in one thread of this process.

    Args:
        processes: number of worker processes; 0 for this process. A single thread then does all the work: rendering
            contexts belong to the thread that made them.
        progress_folder: an existing folder for the counters (:func:`read_progress`).
        patience: seconds of work to be done in this process before worker processes are started: they cost seconds to
            start, and a small job is over by then.
    """

    def __init__(self, processes: int, progress_folder: Path, patience: float = 0.0) -> None:
        self.processes = processes
        self._folder = progress_folder
        self._patience = patience
        self._deadline: float | None = None
        self._lock = threading.Lock()
        self._here = threading.Lock()
        self._executors: dict[bool, Executor] = {}
        self._is_closed = False
        self._stopped = threading.Event()
        self._slots = threading.BoundedSemaphore(max(1, processes))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Waits until a worker is free: what has to be decided just before its work is decided inside."""
        with self._slots:
            yield

    def prepare(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Like :meth:`run`, for what has to be done once before the work; it takes nothing from the patience."""
        with self._here:
            return self._run(self.processes == 0 or self._patience > 0, function, *args, **kwargs)

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result, computed in a worker; both must be picklable.

        Raises:
            WorkerLostError: a worker died; the next call starts new ones.
            RunStoppedError: the workers were closed meanwhile.
        """
        if self.processes == 0:
            return self._run(True, function, *args, **kwargs)  # noqa: FBT003 (which of two places)
        with self._lock:
            self._deadline = self._deadline or time.monotonic() + self._patience
            left = self._deadline - time.monotonic()
        if left > 0 and self._here.acquire(timeout=left):
            try:
                return self._run(True, function, *args, **kwargs)  # noqa: FBT003
            finally:
                self._here.release()
        return self._run(False, function, *args, **kwargs)  # noqa: FBT003

    def _run(self, is_here: bool, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: FBT001
        executor = self._open_executor(is_here=is_here)
        try:
            with _interrupts_blocked():
                future = executor.submit(function, *args, **kwargs)
            return future.result()
        except CancelledError as error:
            raise RunStoppedError("The run was stopped.") from error
        except BrokenProcessPool as error:
            if self._is_closed:
                raise RunStoppedError("The run was stopped.") from error
            self._drop(executor)
            raise WorkerLostError(
                "A worker process died (killed, or out of memory). Its episodes are made again."
            ) from error

    def close(self) -> None:
        """Ends the workers at once; unfinished work is dropped."""
        with self._lock:
            self._is_closed = True
            self._stopped.set()
            executors, self._executors = self._executors, {}
        for executor in executors.values():
            _shut_down(executor)

    def _open_executor(self, *, is_here: bool) -> Executor:
        with self._lock:
            if self._is_closed:
                raise RunStoppedError("The run was stopped.")
            if is_here not in self._executors:
                self._executors[is_here] = self._make_executor(is_here=is_here)
            return self._executors[is_here]

    def _make_executor(self, *, is_here: bool) -> Executor:
        if is_here:
            return ThreadPoolExecutor(1, "rollout", initializer=_start_counter, initargs=(self._folder, self._stopped))
        return ProcessPoolExecutor(
            self.processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._folder,),
        )

    def _drop(self, broken: Executor) -> None:
        with self._lock:
            if self._executors.get(False) is broken:
                del self._executors[False]
        broken.shutdown(wait=False, cancel_futures=True)


def _shut_down(executor: Executor) -> None:
    if not isinstance(executor, ProcessPoolExecutor):
        executor.shutdown(wait=True, cancel_futures=True)
        return
    processes = list((executor._processes or {}).values())  # noqa: SLF001 (public only from Python 3.14 on)
    executor.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(5)


class _Counting(threading.local):
    """The counter of the thread that does a run's work; it ends with the thread, and so does a run's stop."""

    counter: ProgressCounter | None = None


_counting = _Counting()


def count_progress(*, steps: int = 0, episodes: int = 0) -> None:
    """Counts steps and episodes of this thread, where somebody counts.

    Raises:
        RunStoppedError: the run was stopped; a process can be ended from outside, a thread has to ask.
    """
    if _counting.counter is not None:
        _counting.counter.add(steps=steps, episodes=episodes)


def _start_counter(folder: Path, stopped: threading.Event | None = None) -> None:
    _counting.counter = ProgressCounter(folder / f"{os.getpid()}-{threading.get_ident()}.progress", stopped)


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Has processes that are started inside not hear Ctrl-C until they ignore it by themselves.

    A new process inherits the blocked signals of the thread that starts it; one that is interrupted while Python
    starts would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(folder: Path) -> None:
    """Makes a worker end with its parent: one whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()
    _ignore_interrupts()
    _keep_quiet()
    _start_counter(folder)


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _ignore_interrupts() -> None:
    """Ctrl-C goes to every process of the terminal; the main process decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _keep_quiet() -> None:
    """Environments and libraries print and warn; the terminal belongs to the command. Errors travel as exceptions."""
    warnings.filterwarnings("ignore")
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # also what native libraries print
        os.dup2(nowhere, stream)
    os.close(nowhere)


def available_cores() -> int:
    """Cores that this process may use: its affinity and its cgroup's quota, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, _cgroup_cores() or affinity))


def _cgroup_cores() -> int | None:
    """Whole cores of the cgroup's CPU quota (v2, then v1), None without one."""
    for read in (_quota_v2, _quota_v1):
        with contextlib.suppress(OSError, ValueError):
            quota = read()
            return max(1, round(quota)) if quota else None
    return None


def _quota_v2() -> float | None:
    quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1() -> float | None:
    folder = Path("/sys/fs/cgroup/cpu")
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
