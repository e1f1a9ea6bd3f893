"""The steps of a generate run as Prefect tasks, submitted to the runner that the user asks for."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import get_run_logger
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.cli.progress import current_display
from flows.execution.rendering_limit import rendering_slot
from flows.execution.task_runners import RunnerChoice, open_runner
from flows.ui.generate_artifacts import progress_in_ui
from rlhfblender_core.dataset.publish import PublishedShard
from rlhfblender_core.dataset.published import Published
from rlhfblender_core.locations import Locations
from rlhfblender_core.planning.work import CheckpointWork
from rlhfblender_core.registry import CheckpointRecord, EnvironmentRecord, ExperimentRecord
from rlhfblender_core.report.summary import CheckpointReport
from rlhfblender_core.rollout.make_shard import RunWorkers
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import PendingShard, Shard
from rlhfblender_core.runs.claims import RunClaims
from rlhfblender_core.runs.folders import Run, open_run, open_scratch
from rlhfblender_core.steps import RunSteps, ShardResult, claiming, shard_result
from rlhfblender_core.workers.pool import Workers
from rlhfblender_core.workers.processes import start_fork_server
from rlhfblender_core.workers.progress import ProgressCounter
from tasks.checkpoints import load_checkpoint
from tasks.parameters import quoted
from tasks.registration import ensure_env_registered, ensure_experiment_registered, index_episodes
from tasks.rollout import ShardTarget, rollout_episodes
from tasks.run_workers import known_run_workers
from tasks.steps import task_of

P = ParamSpec("P")
R = TypeVar("R")


class PrefectSteps:
    """See :class:`rlhfblender_core.steps.Steps`.

    Args:
        locations: data root and registry.
        choice: where episodes are rolled out.
    """

    def __init__(self, locations: Locations, choice: RunnerChoice) -> None:
        self.locations = locations
        self._choice = choice

    def ensure_env_registered(self, environment: EnvironmentRecord) -> None:
        """See :class:`rlhfblender_core.steps.Steps`."""
        ensure_env_registered(environment, self.locations)

    def ensure_experiment_registered(
        self, experiment: ExperimentRecord, checkpoints: Sequence[CheckpointRecord], *, replace: bool
    ) -> None:
        """See :class:`rlhfblender_core.steps.Steps`."""
        ensure_experiment_registered(experiment, checkpoints, self.locations, replace=replace)

    def confirm_complete(self, work: CheckpointWork) -> None:
        """See :class:`rlhfblender_core.steps.Steps`; one task run, which Prefect's cache knows the next time."""
        shard = Shard(work.published.key, work.settings, tuple(range(work.num_episodes)))
        rollout_episodes(quoted(PendingShard(shard)), quoted(ShardTarget(self.locations, None)))

    def index_episodes(
        self, before: Published, num_episodes: int, made: int, failed: Mapping[int, str]
    ) -> CheckpointReport:
        """See :class:`rlhfblender_core.steps.Steps`."""
        return index_episodes(quoted(before), num_episodes, made, failed, self.locations)

    def say(self, line: str) -> None:
        """See :class:`rlhfblender_core.steps.Steps`."""
        get_run_logger().info("%s", line)
        current_display.get().say(line)

    @contextlib.contextmanager
    def open_run(self, missing: int, *, trained: bool) -> Iterator[RunSteps]:
        """See :class:`rlhfblender_core.steps.Steps`."""
        choice = self._choice
        processes = choice.concurrency(missing) if choice.uses_processes else 0
        if processes:
            start_fork_server(trained=trained)
        with (
            # Left last: when the workers have ended, no task waits for them any more.
            open_runner(choice, missing) as runner,
            open_scratch() as progress,
            open_run(self.locations.open_root()) as run,
            Workers(processes, progress) as workers,
            # A cluster's tasks do their work where they are.
            contextlib.nullcontext() if choice.is_cluster else known_run_workers(run.name, RunWorkers(workers, run)),
        ):
            yield _PrefectRun(self.locations, choice, runner, run, progress, missing)


@dataclass
class _PrefectRun:
    """See :class:`rlhfblender_core.steps.RunSteps`."""

    locations: Locations
    choice: RunnerChoice
    runner: TaskRunner[Any]
    run: Run
    progress: Path
    episodes: int

    def __post_init__(self) -> None:
        self.concurrency = self.choice.concurrency(self.episodes)
        self._counter = ProgressCounter(self.progress / "others.progress")

    def load_checkpoint(self, settings: RolloutSettings) -> RolloutSettings:
        return load_checkpoint(settings, self.locations, self.run.name)

    def claiming(self, experiment: str, digests: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
        return claiming(self.locations, self.run, experiment, digests)

    @contextlib.contextmanager
    def rolling_out(self) -> Iterator[None]:
        with (
            rendering_slot(),
            progress_in_ui(self.progress, self.episodes),
            current_display.get().watch(self.progress, self.episodes),
        ):
            yield

    def rollout_episodes(self, shards: Iterable[PendingShard]) -> Iterator[ShardResult]:
        target = ShardTarget(self.locations, self.run.name)
        # What is pending isn't there, whatever Prefect's cache remembers.
        task = rollout_episodes.with_options(refresh_cache=True)
        submitted = {self.runner.submit(task, {"pending": pending, "target": target}): pending for pending in shards}
        for future in as_completed(list(submitted)):
            result = shard_result(submitted[future], _outcome(future))
            if any(message.startswith("episodes ") for message in result.failures.values()):
                get_run_logger().error("%s", next(iter(result.failures.values())))
            # Workers of this machine count what they make themselves.
            made = len(result.made) + len(result.failures) if self.choice.is_cluster else 0
            self._counter.add(episodes=made + result.made_by_others)
            yield result

    def held_by_others(self, experiment: str) -> Mapping[str, frozenset[int]]:
        return RunClaims(self.locations.database_url, self.run.name).held_by_others(experiment)


def _outcome(future: PrefectFuture[PublishedShard]) -> PublishedShard | BaseException:
    result: object = future.result(raise_on_failure=False)
    return cast("PublishedShard | BaseException", result)


class PrefectRunner:
    """Runs the steps of a use case as the tasks that wrap them (:mod:`rlhfblender_core.step_runner`)."""

    def do(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See :class:`rlhfblender_core.step_runner.StepRunner`."""
        return task_of(step)(*args, **kwargs)

    def do_each(self, step: Callable[..., R], calls: Iterable[Mapping[str, Any]], concurrency: int) -> list[R]:
        """See :class:`rlhfblender_core.step_runner.StepRunner`."""
        runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=concurrency)
        with runner:
            futures = [runner.submit(task_of(step), dict(call)) for call in calls]
            results: list[Any] = [future.result(raise_on_failure=False) for future in futures]
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results
