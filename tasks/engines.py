"""Where the work of tasks is done in this process: the worker pools of the runs under way, by run.

Pools can't travel with a task. A task names its run; in the process that started the run it finds the pool here, on
a machine of a cluster it finds none and does the work itself.
"""

import atexit
import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import RunStoppedError, WorkerLostError
from rlhfblender_core.rollout.lost_workers import check_in_workers, roll_out_in_workers
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, StagedShard, check_agent, roll_out_shard
from rlhfblender_core.runs.folders import Run, live_runs, open_run, open_scratch, spread
from rlhfblender_core.runs.sharing import Making, check_same_settings
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.workers.pool import Begun, Workers


@dataclass(frozen=True)
class BegunShard:
    """Episodes that are made before their task comes for them.

    Attributes:
        work: what the worker does.
        hand: this run has them in hand until it is closed.
    """

    work: Begun[StagedShard]
    hand: contextlib.ExitStack


@dataclass(frozen=True)
class Engine:
    """What a run works with in this process.

    Attributes:
        workers: where shards are rolled out.
        run: with the folder for unfinished files.
    """

    workers: Workers
    run: Run
    _checks: dict[str, Begun[RolloutSettings]] = field(default_factory=dict, init=False)
    _shards: dict[tuple[CheckpointKey, tuple[int, ...]], BegunShard] = field(default_factory=dict, init=False)

    @property
    def staging(self) -> Path:
        """The folder for unfinished files."""
        return self.run.folder

    def begin(self, shard: Shard, missing: tuple[int, ...], hand: contextlib.ExitStack) -> None:
        """Has the shard's missing episodes made, after the checkpoint's check, without waiting for them.

        Args:
            shard: as its task names it.
            missing: its episodes that have to be made.
            hand: holds them in hand.
        """
        digest = shard.settings.digest
        if digest not in self._checks:
            self._checks[digest] = self.workers.begin(check_agent, shard.settings)
        work = self.workers.begin(roll_out_shard, replace(shard, episodes=missing), self.staging)
        self._shards[shard.key, shard.episodes] = BegunShard(work, hand)

    def check(self, settings: RolloutSettings) -> None:
        """Has the checkpoint loaded and act once, if that hasn't been begun.

        Raises:
            RequestError: it can't.
        """
        begun = self._checks.pop(settings.digest, None)
        if begun is not None:
            with contextlib.suppress(WorkerLostError):  # its episodes tell which of them end their process
                begun.result()
        else:
            check_in_workers(self.workers, settings)

    def take_begun(self, shard: Shard) -> BegunShard | None:
        """The shard's episodes, where they have been begun; once only: what failed is done anew."""
        return self._shards.pop((shard.key, shard.episodes), None)

    def drop_begun(self) -> None:
        """Lets go of what no task came for."""
        while self._shards:
            self._shards.popitem()[1].hand.close()

    def roll_out(self, shard: Shard, missing: tuple[int, ...]) -> StagedShard:
        """Makes the shard's missing episodes in a worker."""
        return roll_out_in_workers(self.workers, replace(shard, episodes=missing), self.staging)


#: By run; None for a run that this process started and that is over: its tasks that still wait for another try must not
#: go on by themselves.
_engines: dict[str, Engine | None] = {}


@contextlib.contextmanager
def open_engine(run_id: str, root: DataRoot, workers: Workers, making: Making | None = None) -> Iterator[Engine]:
    """Makes this process do the run's work in these workers.

    Args:
        run_id: of the run.
        root: the data root.
        workers: for the run's shards; closed in the end.
        making: whose files it publishes; None where that may be anybody's.

    Raises:
        InvalidParameterError: another run makes the same experiment's episodes with other settings.
    """
    with _telling_run(root, making) as run, workers:
        if making is not None:
            check_same_settings(root, making, run)
        _engines[run_id] = engine = Engine(workers, run)
        try:
            yield engine
        finally:
            _engines[run_id] = None
            engine.drop_begun()


@contextlib.contextmanager
def engine_of(run_id: str, root: DataRoot, making: Making | None = None) -> Iterator[Engine]:
    """The run's engine; on a machine of a cluster, this process's own with a folder for this call.

    Args:
        run_id: of the run.
        root: the data root.
        making: whose files are published by this call.

    Raises:
        RunStoppedError: the run is over.
    """
    check_goes_on(run_id)
    engine = _engines.get(run_id)
    if engine is not None:
        yield engine
        return
    with _telling_run(root, making) as run:
        yield Engine(_workers_of_this_process(), run)


@contextlib.contextmanager
def _telling_run(root: DataRoot, making: Making | None) -> Iterator[Run]:
    with open_run(root, making.experiment if making else None) as run:
        if making is not None and making.digests:
            run.notice.make(making.digests)
        yield run


def check_goes_on(run_id: str) -> None:
    """Makes sure that the run, if it is one of this process, isn't over.

    Raises:
        RunStoppedError: it is.
    """
    if run_id in _engines and _engines[run_id] is None:
        raise RunStoppedError("The run was stopped.")


def start_fraction(run_id: str, root: DataRoot, experiment: str) -> float:
    """Where in its work this run starts, from 0 to 1, so that runs on the same experiment meet late."""
    engine = _engines.get(run_id)
    live = live_runs(root, experiment)
    if engine is None or engine.run.folder.name not in live:
        return 0.0
    return spread(live.index(engine.run.folder.name))


@functools.cache
def _workers_of_this_process() -> Workers:
    """For a cluster's worker: one thread, whatever the number of threads that the cluster runs tasks in."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return Workers(0, stack.enter_context(open_scratch()))
