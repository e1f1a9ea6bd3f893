"""The steps of a generate run as Prefect tasks, submitted to the runner that the user asks for."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import get_run_logger
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.cli.progress import checking, current_display
from flows.execution.rendering_limit import rendering_slot
from flows.execution.task_runners import RunnerChoice, open_runner
from flows.ui.generate_artifacts import progress_in_ui
from rlhfblender_core.dataset.publish import PublishedShard
from rlhfblender_core.locations import Locations
from rlhfblender_core.planning.work import CheckpointWork
from rlhfblender_core.registry import CheckpointRecord, EnvironmentRecord, EpisodeRecord, ExperimentRecord
from rlhfblender_core.report.summary import CheckpointOutcome, CheckpointReport
from rlhfblender_core.rollout.make_shard import RunWorkers
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import PendingShard
from rlhfblender_core.runs.claims import RunClaims
from rlhfblender_core.runs.folders import Run, open_run, open_scratch
from rlhfblender_core.step_runner import as_they_end
from rlhfblender_core.steps import WRITERS, RunSteps, ShardResult, claiming, shard_result
from rlhfblender_core.wording import counted
from rlhfblender_core.workers.pool import Workers
from rlhfblender_core.workers.processes import start_fork_server
from rlhfblender_core.workers.progress import ProgressCounter
from tasks.checkpoints import load_checkpoint
from tasks.parameters import quoted
from tasks.registration import ensure_env_registered, ensure_experiment_registered, index_episodes, report
from tasks.rollout import CompleteCheckpoint, ShardTarget, confirm_complete, rollout_episodes
from tasks.run_workers import known_run_workers
from tasks.steps import task_of

#: So many complete checkpoints have a task run of their own.
_CONFIRMED_ONE_BY_ONE = 10

P = ParamSpec("P")
R = TypeVar("R")


class PrefectSteps:
    """See :class:`rlhfblender_core.steps.Steps`.

    Args:
        locations: data root and registry.
        choice: where episodes are rolled out.
        of: what progress is said to be of, where there is more to come.
    """

    def __init__(self, locations: Locations, choice: RunnerChoice, of: str = "") -> None:
        self.locations = locations
        self._choice = choice
        self._of = of

    def ensure_env_registered(self, environment: EnvironmentRecord) -> None:
        """See :class:`rlhfblender_core.steps.Steps`."""
        ensure_env_registered(environment, self.locations)

    def ensure_experiment_registered(
        self, experiment: ExperimentRecord, checkpoints: Sequence[CheckpointRecord], *, replace: bool
    ) -> None:
        """See :class:`rlhfblender_core.steps.Steps`."""
        ensure_experiment_registered(experiment, checkpoints, self.locations, replace=replace)

    def index_episodes(self, rows: Sequence[EpisodeRecord]) -> None:
        """See :class:`rlhfblender_core.steps.Steps`."""
        index_episodes(quoted(rows), self.locations)

    def confirm_complete(self, checkpoints: Sequence[CheckpointWork]) -> None:
        """See :class:`rlhfblender_core.steps.Steps`; by task runs that Prefect's cache knows the next time."""
        complete = [_complete(work) for work in checkpoints]
        for each in complete:
            number = counted(each.num_episodes, "episode")
            get_run_logger().info("Checkpoint %s is complete: %s", each.checkpoint, number)
        # One for each, as a person would look for it; of hundreds, each taking 20 ms, one for all.
        together = [complete] if len(complete) > _CONFIRMED_ONE_BY_ONE else [[each] for each in complete]
        for group in together:
            name = group[0].checkpoint if len(group) == 1 else counted(len(group), "checkpoint")
            confirm_complete(quoted(group), self.locations.data_root, name)

    def report(
        self, experiment: str, num_episodes: int, outcomes: Sequence[CheckpointOutcome]
    ) -> tuple[CheckpointReport, ...]:
        """See :class:`rlhfblender_core.steps.Steps`."""
        return report(experiment, num_episodes, quoted(outcomes), self.locations)

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
            yield _PrefectRun(self.locations, choice, runner, run, progress, missing, self._of)


@dataclass
class _PrefectRun:
    """See :class:`rlhfblender_core.steps.RunSteps`."""

    locations: Locations
    choice: RunnerChoice
    runner: TaskRunner[Any]
    run: Run
    progress: Path
    episodes: int
    of: str

    def __post_init__(self) -> None:
        self.concurrency = self.choice.concurrency(self.episodes)
        self._counter = ProgressCounter(self.progress / "others.progress")

    def load_checkpoint(self, settings: RolloutSettings) -> RolloutSettings:
        with checking():
            return load_checkpoint(settings, self.locations, self.run.name)

    def claiming(self, experiment: str, digests: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
        return claiming(self.locations, self.run, experiment, digests)

    @contextlib.contextmanager
    def rolling_out(self) -> Iterator[None]:
        with (
            rendering_slot(),
            progress_in_ui(self.progress, self.episodes, self.of),
            current_display.get().watch(self.progress, self.episodes, self.of),
        ):
            yield

    def rollout_episodes(self, shards: Iterable[PendingShard]) -> Iterator[ShardResult]:
        target = ShardTarget(self.locations, self.run.name)

        def submit(pending: PendingShard) -> PrefectFuture[PublishedShard]:
            future: PrefectFuture[PublishedShard]
            future = self.runner.submit(rollout_episodes, {"pending": pending, "target": target})
            return future

        for pending, future in as_they_end(shards, submit, self.concurrency + WRITERS):
            result = shard_result(pending, _outcome(future))
            if any(message.startswith("episodes ") for message in result.failures.values()):
                get_run_logger().error("%s", next(iter(result.failures.values())))
            # Workers of this machine count what they make themselves.
            made = len(result.made) + len(result.failures) if self.choice.is_cluster else 0
            self._counter.add(episodes=made + result.made_by_others)
            yield result

    def held_by_others(self, experiment: str) -> Mapping[str, frozenset[int]]:
        return RunClaims(self.locations.database_url, self.run.name).held_by_others(experiment)


def _complete(work: CheckpointWork) -> CompleteCheckpoint:
    return CompleteCheckpoint(work.key.experiment, work.key.checkpoint, work.settings.digest, work.num_episodes)


def _outcome(future: PrefectFuture[PublishedShard]) -> PublishedShard | BaseException:
    result: object = future.result(raise_on_failure=False)
    return cast("PublishedShard | BaseException", result)


class PrefectRunner:
    """Runs the steps of a use case as the tasks that wrap them (:mod:`rlhfblender_core.step_runner`)."""

    def do(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See :class:`rlhfblender_core.step_runner.StepRunner`."""
        return task_of(step)(*args, **kwargs)

    def do_each(
        self,
        step: Callable[..., R],
        calls: Iterable[Mapping[str, Any]],
        concurrency: int,
        *,
        total: int | None = None,
    ) -> list[R]:
        """See :class:`rlhfblender_core.step_runner.StepRunner`.

        Few are submitted ahead: memory doesn't grow with their number.
        """
        task = task_of(step)
        runner: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=concurrency)
        found: dict[int, Any] = {}

        def submit(call: tuple[int, Mapping[str, Any]]) -> PrefectFuture[R]:
            future: PrefectFuture[R] = runner.submit(task, dict(call[1]))
            return future

        with runner, current_display.get().count(task.name, total) as advance:
            for (number, _), future in as_they_end(enumerate(calls), submit, 2 * concurrency):
                found[number] = future.result(raise_on_failure=False)
                advance()
        results = [found[number] for number in sorted(found)]
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results
