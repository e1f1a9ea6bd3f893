"""Where the work of tasks is done in this process: the workers of the runs under way, by run.

Pools can't travel with a task. A task names its run; in the process that started the run it finds the workers here, on
a machine of a cluster it finds none and does the work itself.
"""

import atexit
import contextlib
import functools
from collections.abc import Iterator

from rlhfblender_core.errors import RunStoppedError
from rlhfblender_core.locations import Locations
from rlhfblender_core.rollout.make_shard import RunWorkers
from rlhfblender_core.runs.folders import open_run, open_scratch
from rlhfblender_core.workers.pool import Workers

#: By run; None for a run that this process started and that is over: its tasks that still wait for another try must not
#: go on by themselves.
_run_workers: dict[str, RunWorkers | None] = {}


@contextlib.contextmanager
def known_run_workers(run_id: str, run_workers: RunWorkers) -> Iterator[None]:
    """Has the run's tasks in this process find these workers while the context lasts."""
    _run_workers[run_id] = run_workers
    try:
        yield
    finally:
        _run_workers[run_id] = None


@contextlib.contextmanager
def run_workers_of(run_id: str, locations: Locations) -> Iterator[RunWorkers]:
    """The run's workers; on a machine of a cluster, this process's own with a folder for this call.

    Args:
        run_id: of the run.
        locations: of the data root, for which a folder is needed.

    Raises:
        RunStoppedError: the run is over.
    """
    check_goes_on(run_id)
    known = _run_workers.get(run_id)
    if known is not None:
        yield known
        return
    with open_run(locations.open_root()) as run:
        yield RunWorkers(_workers_of_this_process(), run)


def check_goes_on(run_id: str) -> None:
    """Makes sure that the run, if it is one of this process, isn't over.

    Raises:
        RunStoppedError: it is.
    """
    if run_id in _run_workers and _run_workers[run_id] is None:
        raise RunStoppedError("The run was stopped.")


@functools.cache
def _workers_of_this_process() -> Workers:
    """For a cluster's worker: one thread, whatever the number of threads that the cluster runs tasks in."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return Workers(0, stack.enter_context(open_scratch()))
