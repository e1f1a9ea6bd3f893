"""What a generate run is made of, named like the user's tasks, and the steps of a run without Prefect.

What is done in which order is in :mod:`rlhfblender_core.generate`. The flows pass steps that submit Prefect tasks
(:mod:`flows.execution.prefect_steps`); here the functions are called directly, over the same worker pool.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from rlhfblender_core.dataset.publish import PublishedShard
from rlhfblender_core.dataset.staged import StagedShard
from rlhfblender_core.errors import (
    EpisodesFailedError,
    OutOfReachError,
    RegistryUnavailableError,
    RequestError,
    RunStoppedError,
    StorageUnavailableError,
    one_line,
)
from rlhfblender_core.locations import Locations
from rlhfblender_core.planning.work import CheckpointWork
from rlhfblender_core.registry import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentRecord,
    open_registry,
)
from rlhfblender_core.report.summary import CheckpointOutcome, CheckpointReport, report_checkpoints
from rlhfblender_core.rollout.make_shard import RunWorkers, make_shard, write_shard
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import PendingShard
from rlhfblender_core.runs.claims import RunClaims, open_claims
from rlhfblender_core.runs.folders import Run, open_run, open_scratch
from rlhfblender_core.step_runner import as_they_end, tried_again
from rlhfblender_core.workers.pool import Workers, available_cores
from rlhfblender_core.workers.processes import start_fork_server

_logger = logging.getLogger(__name__)

#: What concerns all shards, not the one that met it first.
_OF_THE_RUN = (RequestError, RunStoppedError, OutOfReachError, StorageUnavailableError, RegistryUnavailableError)

#: Shards that are written while the workers roll out the next ones.
WRITERS = 2


@dataclass(frozen=True)
class ShardResult:
    """What became of a shard.

    Attributes:
        pending: the shard.
        made: numbers of the episodes that were published.
        failures: message by number of those that failed.
        held: numbers of those that other runs had claimed.
        seconds: how long making them took.
    """

    pending: PendingShard
    made: tuple[int, ...]
    failures: Mapping[int, str]
    held: tuple[int, ...] = ()
    seconds: float = 0.0

    @property
    def made_by_others(self) -> int:
        """How many episodes other runs have made meanwhile."""
        return len(self.pending.shard.episodes) - len(self.made) - len(self.failures) - len(self.held)


class RunSteps(Protocol):
    """The steps that need a run's workers."""

    concurrency: int

    def load_checkpoint(self, settings: RolloutSettings) -> RolloutSettings:
        """Loads the checkpoint and lets it act once, so that nothing is registered for one that can't.

        Returns:
            The settings, and whether their environment is reproducible.
        """

    def claiming(self, experiment: str, digests: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
        """Tells other runs what this one makes while the context lasts.

        Args:
            experiment: whose episodes.
            digests: of the requests, by checkpoint.

        Raises:
            InvalidParameterError: another run makes the same checkpoints' episodes with other settings.
        """

    def rolling_out(self) -> contextlib.AbstractContextManager[None]:
        """Shows how far the run has got while the context lasts."""

    def rollout_episodes(self, shards: Iterable[PendingShard]) -> Iterator[ShardResult]:
        """Has the shards made and written; gives what became of each, as they end."""

    def held_by_others(self, experiment: str) -> Mapping[str, frozenset[int]]:
        """Episodes that live other runs have claimed, by checkpoint."""


class Steps(Protocol):
    """What a run is made of."""

    locations: Locations

    def ensure_env_registered(self, environment: EnvironmentRecord) -> None:
        """Registers the environment, or makes sure that it is registered like this."""

    def ensure_experiment_registered(
        self, experiment: ExperimentRecord, checkpoints: Sequence[CheckpointRecord], *, replace: bool
    ) -> None:
        """Registers the experiment with its project and checkpoints, or makes sure that it is registered like this."""

    def open_run(self, missing: int, *, trained: bool) -> contextlib.AbstractContextManager[RunSteps]:
        """The steps that need workers, which are ended with the context.

        Args:
            missing: how many episodes have to be made.
            trained: whether trained agents make some of them.
        """

    def index_episodes(self, rows: Sequence[EpisodeRecord]) -> None:
        """Writes the index's rows of episodes that the registry doesn't know: it was lost, or is an older version's."""

    def confirm_complete(self, checkpoints: Sequence[CheckpointWork]) -> None:
        """Notes that all episodes of these checkpoints exist."""

    def report(
        self, experiment: str, num_episodes: int, outcomes: Sequence[CheckpointOutcome]
    ) -> tuple[CheckpointReport, ...]:
        """What exists of the checkpoints, in numbers."""

    def say(self, line: str) -> None:
        """Tells a person something while the run goes on."""


def register_environment(environment: EnvironmentRecord, locations: Locations) -> EnvironmentRecord:
    """The environment as registered, which it is afterwards."""
    with open_registry(locations.database_url, reached_before=True) as registry:
        return registry.ensure_environment(environment)


def register_experiment(
    experiment: ExperimentRecord, checkpoints: Sequence[CheckpointRecord], locations: Locations, *, replace: bool
) -> ExperimentRecord:
    """The experiment as registered, which it is afterwards, with its project and checkpoints."""
    with open_registry(locations.database_url, reached_before=True) as registry:
        registered = registry.ensure_experiment(experiment, replace_settings=replace)
        registry.ensure_checkpoints(experiment.name, checkpoints)
    return registered


def index_rows(rows: Sequence[EpisodeRecord], locations: Locations) -> None:
    """Writes the index's rows of episodes that the registry doesn't know."""
    with open_registry(locations.database_url, create=False, reached_before=True) as registry:
        registry.record_episodes(rows)


def report_on(
    experiment: str, num_episodes: int, outcomes: Sequence[CheckpointOutcome], locations: Locations
) -> tuple[CheckpointReport, ...]:
    """What exists of the checkpoints, in numbers."""
    with open_registry(locations.database_url, create=False, reached_before=True) as registry:
        return report_checkpoints(registry, experiment, num_episodes, outcomes)


@contextlib.contextmanager
def claiming(locations: Locations, run: Run, experiment: str, digests: Mapping[str, str]) -> Iterator[None]:
    """Tells other runs what this one makes while the context lasts; makes the registry if needed.

    Raises:
        InvalidParameterError: another run makes the same checkpoints' episodes with other settings.
    """
    open_registry(locations.database_url).close()
    with open_claims(locations.database_url, run.folder, experiment, digests):
        yield


def shard_result(pending: PendingShard, result: PublishedShard | BaseException) -> ShardResult:
    """What became of a shard, from what making it returned or raised.

    Raises:
        RLHFBlenderError: what concerns all shards of the run.
    """
    if isinstance(result, PublishedShard):
        return ShardResult(pending, result.episodes, {}, result.held, result.seconds)
    if isinstance(result, EpisodesFailedError):
        # Of the others it isn't known whether they exist by now; they are asked for again.
        tried = {*result.published, *result.failures}
        for episode, trace in result.traces.items():
            _logger.debug("%s, %s\n%s", pending.shard.key.checkpoint, result.failures.get(episode), trace)
        others = tuple(n for n in pending.shard.episodes if n not in tried)
        return ShardResult(pending, tuple(result.published), result.failures, others)
    if isinstance(result, _OF_THE_RUN) or not isinstance(result, Exception):
        raise result
    line = f"episodes {pending.shard.name} failed: {one_line(result)}"
    return ShardResult(pending, (), dict.fromkeys(pending.shard.episodes, line))


class LocalSteps:
    """The steps of a run in this process and worker processes of its own.

    Args:
        locations: data root and registry.
        workers: how many worker processes; None for the cores that this process may use, 0 for this process itself.
    """

    def __init__(self, locations: Locations, workers: int | None = None) -> None:
        self.locations = locations
        self._workers = available_cores() if workers is None else workers

    def ensure_env_registered(self, environment: EnvironmentRecord) -> None:
        """See :class:`Steps`."""
        tried_again(lambda: register_environment(environment, self.locations))

    def ensure_experiment_registered(
        self, experiment: ExperimentRecord, checkpoints: Sequence[CheckpointRecord], *, replace: bool
    ) -> None:
        """See :class:`Steps`."""
        tried_again(lambda: register_experiment(experiment, checkpoints, self.locations, replace=replace))

    @contextlib.contextmanager
    def open_run(self, missing: int, *, trained: bool) -> Iterator[RunSteps]:
        """See :class:`Steps`."""
        processes = min(self._workers, missing)
        if processes:
            start_fork_server(trained=trained)
        with (
            open_scratch() as progress,
            open_run(self.locations.open_root()) as run,
            Workers(processes, progress) as workers,
        ):
            yield _LocalRun(self.locations, RunWorkers(workers, run))

    def index_episodes(self, rows: Sequence[EpisodeRecord]) -> None:
        """See :class:`Steps`."""
        tried_again(lambda: index_rows(rows, self.locations))

    def confirm_complete(self, checkpoints: Sequence[CheckpointWork]) -> None:
        """See :class:`Steps`; there is nothing to note."""

    def report(
        self, experiment: str, num_episodes: int, outcomes: Sequence[CheckpointOutcome]
    ) -> tuple[CheckpointReport, ...]:
        """See :class:`Steps`."""
        return tried_again(lambda: report_on(experiment, num_episodes, outcomes, self.locations))

    def say(self, line: str) -> None:
        """See :class:`Steps`; a library prints nothing."""


class _LocalRun:
    def __init__(self, locations: Locations, run_workers: RunWorkers) -> None:
        self._locations = locations
        self._run_workers = run_workers
        self._run_id = run_workers.run.name
        self.concurrency = max(1, run_workers.workers.processes)

    def load_checkpoint(self, settings: RolloutSettings) -> RolloutSettings:
        return tried_again(lambda: self._run_workers.check(settings))

    def claiming(self, experiment: str, digests: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
        return claiming(self._locations, self._run_workers.run, experiment, digests)

    def rolling_out(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def rollout_episodes(self, shards: Iterable[PendingShard]) -> Iterator[ShardResult]:
        ahead = self.concurrency + WRITERS
        with ThreadPoolExecutor(ahead) as threads:
            try:
                for pending, future in as_they_end(shards, lambda shard: threads.submit(self._make, shard), ahead):
                    yield shard_result(pending, _outcome(future))
            except BaseException:  # an interrupt, too, and a caller that wants no more results
                self._run_workers.workers.close()  # those who wait for a worker are told so
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def _make(self, pending: PendingShard) -> PublishedShard:
        return tried_again(lambda: make_shard(pending, self._run_workers, self._locations, self._run_id, self._write))

    def _write(self, staged: StagedShard) -> PublishedShard:
        return tried_again(lambda: write_shard(staged, self._locations, self._run_id))

    def held_by_others(self, experiment: str) -> Mapping[str, frozenset[int]]:
        return RunClaims(self._locations.database_url, self._run_id).held_by_others(experiment)


def _outcome(future: Future[PublishedShard]) -> PublishedShard | BaseException:
    error = future.exception()
    return future.result() if error is None else error
