"""Where shards are rolled out on this machine: in this process, or in a pool of worker processes.

Prefect's own process runner isn't used: each of its workers would start a temporary server, and one killed worker
fails every unfinished task for good. Here a task hands its work to the pool and waits; when a worker dies the pool is
dropped and each waiting task raises :class:`WorkerLostError`, which an ordinary task retry mends.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Generic, ParamSpec, TypeVar

from rlhfblender_core.errors import RunStoppedError, WorkerLostError
from rlhfblender_core.workers.processes import (
    end_pool,
    how_it_ended,
    interrupts_blocked,
    make_pool,
    worker_processes,
)
from rlhfblender_core.workers.progress import start_counter

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """Runs functions in worker processes, or in one thread of this process.

    Args:
        processes: number of worker processes; 0 for this process. A single thread then does all the work: rendering
            contexts belong to the thread that made them.
        progress_folder: an existing folder for the counters (:func:`~rlhfblender_core.workers.progress.read_progress`).
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
        self._single: set[ProcessPoolExecutor] = set()
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

    def begin(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> "Begun[R]":
        """Like :meth:`run`, without waiting. Not for workers with patience: where the work is done isn't decided yet.

        Raises:
            RunStoppedError: the workers were closed.
        """
        return self._begin(self.processes == 0, function, *args, **kwargs)

    def run_alone(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Like :meth:`run`, in a process that does nothing else: if that one dies, it died of this.

        Raises:
            WorkerLostError: it died; the message says how.
            RunStoppedError: the workers were closed meanwhile.
        """
        if self.processes == 0:
            return self.run(function, *args, **kwargs)
        with self._lock:
            if self._is_closed:
                raise RunStoppedError("The run was stopped.")
            pool = make_pool(1, self._folder)
            self._single.add(pool)
        try:
            with interrupts_blocked():
                future = pool.submit(function, *args, **kwargs)
            processes = worker_processes(pool)
            return future.result()
        except (BrokenProcessPool, CancelledError) as error:
            if self._is_closed:
                raise RunStoppedError("The run was stopped.") from error
            raise WorkerLostError(how_it_ended(processes)) from error
        finally:
            with self._lock:
                self._single.discard(pool)
            end_pool(pool)

    def _run(self, is_here: bool, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: FBT001
        return self._begin(is_here, function, *args, **kwargs).result()

    def _begin(
        self,
        is_here: bool,  # noqa: FBT001
        function: Callable[P, R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> "Begun[R]":
        executor = self._open_executor(is_here=is_here)
        with interrupts_blocked(), self._said_what_ended(executor):
            return Begun(executor.submit(function, *args, **kwargs), lambda: self._said_what_ended(executor))

    @contextlib.contextmanager
    def _said_what_ended(self, executor: Executor) -> Iterator[None]:
        try:
            yield
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
            executors = [*self._executors.values(), *self._single]
            self._executors, self._single = {}, set()
        for executor in executors:
            if isinstance(executor, ProcessPoolExecutor):
                end_pool(executor)
            else:
                executor.shutdown(wait=True, cancel_futures=True)

    def _open_executor(self, *, is_here: bool) -> Executor:
        with self._lock:
            if self._is_closed:
                raise RunStoppedError("The run was stopped.")
            if is_here not in self._executors:
                self._executors[is_here] = self._make_executor(is_here=is_here)
            return self._executors[is_here]

    def _make_executor(self, *, is_here: bool) -> Executor:
        if is_here:
            return ThreadPoolExecutor(1, "rollout", initializer=start_counter, initargs=(self._folder, self._stopped))
        return make_pool(self.processes, self._folder)

    def _drop(self, broken: Executor) -> None:
        with self._lock:
            if self._executors.get(False) is broken:
                del self._executors[False]
        broken.shutdown(wait=False, cancel_futures=True)


class Begun(Generic[R]):
    """Work that a worker does, or will do as soon as one is free."""

    def __init__(self, future: "Future[R]", ended: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._future = future
        self._ended = ended

    def result(self) -> R:
        """What the work brought, once it is done.

        Raises:
            WorkerLostError: a worker died.
            RunStoppedError: the workers were closed meanwhile.
        """
        with self._ended():
            return self._future.result()


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
