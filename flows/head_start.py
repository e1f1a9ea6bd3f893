"""What a command does while Prefect's temporary server starts: its workers make the first episodes.

The run's tasks then find them begun, or made (:mod:`tasks.engines`). Nothing is registered or published before.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from flows.cli.temporary_server import is_starting
from flows.execution.prefect_steps import begin_shards
from flows.execution.task_runners import Means, RunnerChoice, open_means
from flows.jobs import Job
from rlhfblender_core.runs.cleanup import remove_leftovers
from rlhfblender_core.storage import DataRoot
from tasks.config import Locations

#: So many shards per worker: the first start of a server, which makes its database, takes as long.
_SHARDS_AHEAD = 3

#: What was opened for the flow that the command runs next, and what closes it.
_opened: ContextVar[tuple[Means, contextlib.ExitStack] | None] = ContextVar("opened", default=None)


@contextlib.contextmanager
def head_start(job: Job, locations: Locations, choice: RunnerChoice) -> Iterator[None]:
    """Begins with the job, unless Prefect answers at once, or it is so small that it makes no difference.

    Args:
        job: checked.
        locations: where it goes.
        choice: what the user asks for.
    """
    choice = choice.for_agents(trained=job.is_trained)
    if not is_starting() or not job.missing or choice.is_cluster or choice.is_patient:
        yield
        return
    concurrency = choice.concurrency(job.missing)
    with contextlib.ExitStack() as stack:
        means = stack.enter_context(_new_means(job, locations.open_root(), choice))
        begin_shards(job.work, locations, means.run_id, concurrency, _SHARDS_AHEAD * concurrency)
        _opened.set((means, stack))
        yield


@contextlib.contextmanager
def means_of(job: Job, root: DataRoot, choice: RunnerChoice) -> Iterator[Means]:
    """What the job's run works with: what the command has opened for it, if it has. It is closed afterwards."""
    opened = _opened.get()
    _opened.set(None)
    if opened is None:
        with _new_means(job, root, choice) as means:
            yield means
    else:
        means, stack = opened
        with stack:
            yield means


@contextlib.contextmanager
def _new_means(job: Job, root: DataRoot, choice: RunnerChoice) -> Iterator[Means]:
    remove_leftovers(root, [checkpoint.published for checkpoint in job.work])
    with open_means(choice, root, job.missing, job.making) as means:
        yield means
