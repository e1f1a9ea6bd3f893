"""Where a run's tasks are worked on: threads of this process that feed worker processes, or a Dask or Ray cluster."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from rlhfblender_core.credentials import has_credentials
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.steps import WRITERS
from rlhfblender_core.workers import HASH_SEED
from rlhfblender_core.workers.pool import available_cores

RunnerKind = Literal["auto", "inprocess", "process", "dask", "ray"]


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
        if self.dask_address and has_credentials(self.dask_address):
            raise InvalidParameterError("--dask-address holds a password or a token, which Prefect would show.")

    @property
    def is_cluster(self) -> bool:
        """Whether the work is done by processes that this one doesn't see into."""
        return self.kind in ("dask", "ray")

    @property
    def uses_processes(self) -> bool:
        """Whether episodes are made by worker processes of this machine."""
        return self.kind in ("auto", "process")

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
    runner = _cluster_runner(choice, concurrency) if choice.is_cluster else ThreadPoolTaskRunner(concurrency + WRITERS)
    with runner:
        yield runner


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
    alike = {"env_vars": {"PYTHONHASHSEED": HASH_SEED}}
    runner: TaskRunner[Any] = RayTaskRunner(init_kwargs={**options, "runtime_env": alike})
    return runner
