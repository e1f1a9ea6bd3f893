"""Where shards are rolled out on this machine: in this process, or in a pool of worker processes.

Prefect's own process runner isn't used: each of its workers would start a temporary server, and one killed worker
fails every unfinished task for good. Here a task hands its work to the pool and waits; when a worker dies the pool is
dropped and each waiting task gets :class:`WorkerLostError`; which episode it was is found out by
:mod:`rlhfblender_core.rollout.lost_workers`.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import ParamSpec, TypeVar

from rlhfblender_core.errors import RunStoppedError, WorkerLostError
from rlhfblender_core.workers.processes import (
    end_pool,
    how_it_ended,
    make_pool,
    starting_processes,
    worker_processes,
)
from rlhfblender_core.workers.progress import start_counter

_logger = logging.getLogger(__name__)
_DIED = "A worker process died (killed, or out of memory). Its episodes are made again."
#: An environment may have killed its parent, the template: its workers are known to be lost a moment before Python can
#: tell that it has to start another one.
_DYING_S = 0.3

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """Runs functions in worker processes, or in one thread of this process.

    Args:
        processes: number of worker processes; 0 for this process, which debuggers need. A single thread then does all
            the work: rendering contexts belong to the thread that made them.
        progress_folder: an existing folder for the counters (:func:`~rlhfblender_core.workers.progress.read_progress`).
    """

    def __init__(self, processes: int, progress_folder: Path) -> None:
        self.processes = processes
        self._folder = progress_folder
        self._lock = threading.Lock()
        self._executor: Executor | None = None
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

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The function's result, computed in a worker; both must be picklable.

        Raises:
            WorkerLostError: a worker died; the next call starts new ones.
            RunStoppedError: the workers were closed meanwhile.
        """
        executor = self._open_executor()
        try:
            # Workers start when work is submitted; Ctrl-C must not reach one before it ignores it.
            with starting_processes():
                future = executor.submit(function, *args, **kwargs)
            return future.result()
        except CancelledError as error:
            raise RunStoppedError("The run was stopped.") from error
        except BrokenProcessPool as error:
            # Every call that waits gets this error for the one worker that died; the first to come drops the pool.
            if self._is_closed:
                raise RunStoppedError("The run was stopped.") from error
            self._drop(executor)
            time.sleep(_DYING_S)
            raise WorkerLostError(_DIED) from error

    def run_alone(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Like :meth:`run`, in a new process that does nothing else: if that one dies, it died of this.

        Raises:
            WorkerLostError: it died; the message says how.
            RunStoppedError: the workers were closed meanwhile.
        """
        with self._lock:
            if self._is_closed:
                raise RunStoppedError("The run was stopped.")
            pool = make_pool(1, self._folder)
            self._single.add(pool)
        try:
            with starting_processes():
                future = pool.submit(function, *args, **kwargs)
            processes = worker_processes(pool)
            return future.result()
        except (BrokenProcessPool, CancelledError) as error:
            if self._is_closed:
                raise RunStoppedError("The run was stopped.") from error
            # The pool's own thread waits for the process, and its exit status can be read once only: of two threads
            # that ask at the same moment one is told 255.
            pool.shutdown(wait=True)
            time.sleep(_DYING_S)
            raise WorkerLostError(how_it_ended(processes)) from error
        finally:
            with self._lock:
                self._single.discard(pool)
            end_pool(pool)

    def close(self) -> None:
        """Ends the workers at once; unfinished work is dropped."""
        with self._lock:
            self._is_closed = True
            self._stopped.set()
            executors = [self._executor, *self._single]
            self._executor, self._single = None, set()
        for executor in executors:
            if isinstance(executor, ProcessPoolExecutor):
                end_pool(executor)
            elif executor is not None:
                executor.shutdown(wait=True, cancel_futures=True)

    def _open_executor(self) -> Executor:
        with self._lock:
            if self._is_closed:
                raise RunStoppedError("The run was stopped.")
            if self._executor is None:
                self._executor = self._make_executor()
            return self._executor

    def _make_executor(self) -> Executor:
        if self.processes:
            return make_pool(self.processes, self._folder)
        return ThreadPoolExecutor(1, "rollout", initializer=start_counter, initargs=(self._folder, self._stopped))

    def _drop(self, broken: Executor) -> None:
        with self._lock:
            if self._executor is not broken:
                return
            self._executor = None
        _logger.warning(_DIED)  # once, however many calls waited for its workers
        if isinstance(broken, ProcessPoolExecutor):
            end_pool(broken)


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
