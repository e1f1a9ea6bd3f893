"""Where a run's tasks are worked on: threads of this process that feed worker processes, or a Dask or Ray cluster."""

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.runs.sharing import Making, check_same_settings
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.workers.pool import Workers, available_cores
from tasks.engines import open_engine

RunnerKind = Literal["auto", "inprocess", "process", "dask", "ray"]

#: Shards that are written while the workers roll out the next ones.
_WRITERS = 2
#: ``auto``: seconds of work in the command's own process before worker processes are started.
_PATIENCE = 3.0


@dataclass(frozen=True)
class RunnerChoice:
    """What the user asks for.

    Attributes:
        kind: where episodes are rolled out.
        workers: how many at once; None for the cores that this process may use.
        dask_address: of a Dask scheduler; None for a temporary cluster on this machine.
    """

    kind: RunnerKind = "auto"
    workers: int | None = None
    dask_address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise InvalidParameterError(f"--workers must be 1 or more, not {self.workers}.")
        if self.dask_address and self.kind != "dask":
            raise InvalidParameterError("--dask-address needs --runner dask.")

    @property
    def is_cluster(self) -> bool:
        """Whether the work is done by processes that this one doesn't see into."""
        return self.kind in ("dask", "ray")

    @property
    def is_patient(self) -> bool:
        """Whether worker processes are started only for work that takes longer than a moment."""
        return self.kind == "auto"

    def for_agents(self, *, trained: bool) -> "RunnerChoice":
        """The same, with ``auto`` decided for trained agents: worker processes load torch while Prefect starts."""
        return replace(self, kind="process") if trained and self.kind == "auto" else self

    def uses_processes(self, episodes: int) -> bool:
        """Whether so many episodes may be made by worker processes of this machine."""
        return self.kind == "process" or (self.kind == "auto" and self.concurrency(episodes) > 1)

    def concurrency(self, episodes: int) -> int:
        """How many shards are worked on at the same time, of so many episodes."""
        return max(1, min(episodes, 1 if self.kind == "inprocess" else self.workers or available_cores()))


@contextlib.contextmanager
def open_runner(choice: RunnerChoice, episodes: int) -> Iterator[TaskRunner[Any]]:
    """A started task runner.

    Args:
        choice: what the user asks for.
        episodes: how many are to be made.

    Raises:
        InvalidParameterError: the runner's package is missing.
    """
    concurrency = choice.concurrency(episodes)
    runner = _cluster_runner(choice, concurrency) if choice.is_cluster else ThreadPoolTaskRunner(concurrency + _WRITERS)
    with runner:
        yield runner


@dataclass(frozen=True)
class Means:
    """What a run works with in this process, besides its task runner.

    Attributes:
        run_id: by which its tasks find their workers.
        progress: folder of the workers' counters.
    """

    run_id: str
    progress: Path


@contextlib.contextmanager
def open_means(choice: RunnerChoice, root: DataRoot, episodes: int, making: Making | None = None) -> Iterator[Means]:
    """A run's means. To be left before the task runner: that ends the workers, and no task waits for them any more.

    Args:
        choice: what the user asks for.
        root: the data root.
        episodes: how many are to be made.
        making: of which experiment and requests; None for several.

    Raises:
        InvalidParameterError: another run makes the same experiment's episodes with other settings.
    """
    with open_scratch() as progress:
        means = Means(uuid.uuid4().hex, progress)
        if choice.is_cluster:
            if making is not None:
                check_same_settings(root, making)
            yield means
            return
        processes = choice.concurrency(episodes) if choice.uses_processes(episodes) else 0
        workers = Workers(processes, progress, patience=_PATIENCE if choice.is_patient else 0.0)
        with open_engine(means.run_id, root, workers, making):
            yield means


def _cluster_runner(choice: RunnerChoice, concurrency: int) -> TaskRunner[Any]:
    try:
        return _ray_runner(concurrency) if choice.kind == "ray" else _dask_runner(choice.dask_address, concurrency)
    except ImportError as error:
        raise InvalidParameterError(
            f"--runner {choice.kind} needs a package that is missing. Install it: "
            f"pip install 'rlhfblender-data[{choice.kind}]'."
        ) from error


def _dask_runner(address: str | None, concurrency: int) -> TaskRunner[Any]:
    from prefect_dask.task_runners import DaskTaskRunner

    if address:
        runner: TaskRunner[Any] = DaskTaskRunner(address=address)
    else:
        local = {"n_workers": concurrency, "threads_per_worker": 1, "dashboard_address": None}
        runner = DaskTaskRunner(cluster_kwargs=local)
    return runner


def _ray_runner(concurrency: int) -> TaskRunner[Any]:
    from prefect_ray.task_runners import RayTaskRunner

    options = {"num_cpus": concurrency, "include_dashboard": False, "logging_level": "ERROR", "log_to_driver": False}
    runner: TaskRunner[Any] = RayTaskRunner(init_kwargs=options)
    return runner
