"""Training an agent while its data is made: the random baseline first, then each checkpoint's episodes as it appears.

This is the order of things; how each step is done is :class:`TrainingSteps`: called here, or by Prefect's tasks.
"""

import contextlib
import contextvars
import functools
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rlhfblender_core.argument_types import check_arguments
from rlhfblender_core.export.formats import ExportOptions
from rlhfblender_core.export.run import ExportReport, export_all
from rlhfblender_core.generate import carry_out
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.planning.work import GenerationWork, plan_work
from rlhfblender_core.report.summary import CheckpointReport, Report
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.step_runner import LocalRunner, tried_again
from rlhfblender_core.steps import LocalSteps, claiming
from rlhfblender_core.train.job import CheckpointWritten, Event, Ready, Started
from rlhfblender_core.train.model_folder import checkpoint_steps
from rlhfblender_core.train.process import training_process
from rlhfblender_core.train.request import (
    TrainingPlan,
    check_training_flags,
    plan_training,
    rollout_workers,
    training_request_from_flags,
)
from rlhfblender_core.wording import InWords, counted

#: In the place of a checkpoint's label, where runs tell each other what they make.
_TRAINING = "its training"


class TrainingSteps(Protocol):
    """What a training run is made of."""

    locations: Locations

    def train_agent(self, plan: TrainingPlan, hear: Callable[[Event], None]) -> None:
        """Trains to the end, and has each event heard; what is transient is tried again.

        Raises:
            RLHFBlenderError: the training can't be made, or failed.
        """

    def make_episodes(self, work: GenerationWork) -> Report:
        """Registers, rolls out and publishes what the work says."""

    def export(self, out: str, experiment: str) -> ExportReport:
        """Brings an export in RLHF-Blender's format up to date."""


@dataclass(frozen=True)
class TrainingReport(InWords):
    """What a training run came to.

    Attributes:
        report: of its episodes, a row per checkpoint.
        model_path: where its checkpoints are.
        steps: of the checkpoints.
        is_export_whole: whether no episode was left out of the export; None without one.
    """

    report: Report
    model_path: str
    steps: tuple[int, ...]
    is_export_whole: bool | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing failed."""
        return not self.report.failed and self.is_export_whole is not False

    @property
    def summary(self) -> str:
        """What was trained and made, in a line; what failed, if anything did."""
        if self.report.failed:
            return self.report.summary
        if not self.is_whole:
            return "some episodes couldn't be exported"
        checkpoints = f"{counted(len(self.steps), 'checkpoint')} in {self.model_path}"
        made, existing = self.report.made, self.report.wanted - self.report.made
        return f"{checkpoints}, {counted(made, 'episode')} made, {existing:,} already there"


@check_arguments
def train(
    *,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    **flags: Any,
) -> TrainingReport:
    """Trains an agent and generates episodes of each checkpoint as it is written, without Prefect.

    ``train(env="CartPole-v1", algorithm="ppo", total_timesteps=50_000, checkpoint_every=10_000, num_episodes=5)``.
    The same call goes on where it was killed; a higher ``total_timesteps`` trains on.

    Args:
        data_root: folder or fsspec URL; checkpoints go to ``models/<experiment>/`` below it, unless ``model_path`` says
            otherwise.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.
        workers: processes that make episodes meanwhile; None for half of the cores.
        flags: those of ``flows/train.py``.

    Raises:
        RequestError: with what is wrong and what to do; nothing was registered or written.
        TrainingFailedError: the environment or the algorithm raised; the checkpoints so far are good.
        TransientError, OutOfReachError: the storage or the registry is gone, or the training process died repeatedly.
    """
    check_training_flags(flags)
    locations = locate(data_root, database_url, storage_options)
    plan = plan_training(training_request_from_flags(flags), locations, workers)
    return carry_out_training(plan, LocalTrainingSteps(locations, rollout_workers(workers)))


def carry_out_training(plan: TrainingPlan, steps: TrainingSteps) -> TrainingReport:
    """Trains, registers, and makes the episodes of each checkpoint, as the plan says.

    Raises:
        RLHFBlenderError: see :func:`train`.
    """
    rows: dict[str, CheckpointReport] = {}
    whole: bool | None = None
    report = Report(plan.job.experiment, "")
    wants_episodes = not plan.request.no_rollouts
    with _training(plan, steps) as training, _only_training(plan, steps):
        for written in training.batches():
            if wants_episodes or not report.data_root:
                work = plan_work(plan.rollouts(written), steps.locations) if written and wants_episodes else plan.work
                report = steps.make_episodes(work)
                rows |= {row.checkpoint: _joined(rows.get(row.checkpoint), row) for row in report.checkpoints}
            if plan.request.export_to and wants_episodes:
                whole = steps.export(plan.request.export_to, plan.job.experiment).is_whole
    final = replace(report, checkpoints=tuple(rows.values()))
    return TrainingReport(final, f"{plan.job.folder.display_url()}/", tuple(checkpoint_steps(plan.job.folder)), whole)


def _joined(before: CheckpointReport | None, now: CheckpointReport) -> CheckpointReport:
    """The row of a checkpoint that was looked at twice in one run."""
    if before is None:
        return now
    made = min(before.made + now.made, now.made + now.existing)
    return CheckpointReport(
        now.checkpoint, made, now.made + now.existing - made, now.failed,
        now.mean_return, now.std_return, now.mean_length, now.warnings,
    )  # fmt: skip


@contextlib.contextmanager
def _only_training(plan: TrainingPlan, steps: TrainingSteps) -> Iterator[None]:
    """Has another run that would train the same experiment refused while the context lasts."""
    with (
        open_run(steps.locations.open_root()) as run,
        claiming(steps.locations, run, plan.job.experiment, {_TRAINING: uuid.uuid4().hex}),
    ):
        yield


@contextlib.contextmanager
def _training(plan: TrainingPlan, steps: TrainingSteps) -> Iterator["_Training"]:
    """A training under way in a thread that hears of it; its agent and environments could be made.

    Raises:
        RLHFBlenderError: they couldn't.
    """
    training = _Training(plan)
    if plan.is_over:
        yield training
        return
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(training.train, steps), name="training")
    thread.start()
    try:
        training.wait_until_ready()
        yield training
    finally:
        training.stop()
        thread.join()


class _StoppedError(Exception):
    """The run is over."""


class _Training:
    """What the thread that hears of the training, and the one that makes the episodes, share.

    Args:
        plan: of the run.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self._plan = plan
        self._events: queue.Queue[Event | BaseException | None] = queue.Queue()
        self._may_write = threading.Event()
        self._is_stopped = threading.Event()

    def train(self, steps: TrainingSteps) -> None:
        """For the thread: trains to the end."""
        try:
            steps.train_agent(self._plan, self._hear)
            self._events.put(None)
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 (raised again where the run waits for the training)
            self._events.put(error)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Ready | Started | CheckpointWritten):
            self._events.put(event)
        if isinstance(event, Ready):
            self._may_write.wait()
        if self._is_stopped.is_set():
            raise _StoppedError

    def wait_until_ready(self) -> None:
        """Returns when the agent could be made; raises what was raised otherwise."""
        first = self._events.get()
        if isinstance(first, BaseException):
            raise first

    def stop(self) -> None:
        """Has the training end at its next event."""
        self._is_stopped.set()
        self._may_write.set()

    def batches(self) -> Iterator[list[int]]:
        """All that has been written by now, whenever something has: first what earlier runs have.

        Raises:
            RLHFBlenderError: what the training ended with, after what was written before.
        """
        if self._plan.is_over:
            yield checkpoint_steps(self._plan.job.folder)
            return
        self._may_write.set()
        found: list[Event | BaseException | None] = []
        while not found or (found[-1] is not None and not isinstance(found[-1], BaseException)):
            found = list(self._waiting())
            written = {event.step for event in found if isinstance(event, CheckpointWritten)}
            has_started = any(isinstance(event, Started) for event in found)
            if has_started:
                written.update(checkpoint_steps(self._plan.job.folder))
            if written or has_started:
                yield sorted(written)
        if isinstance(found[-1], BaseException):
            raise found[-1]

    def _waiting(self) -> Iterator[Event | BaseException | None]:
        yield self._events.get()
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._events.get_nowait()


class LocalTrainingSteps:
    """The steps of a training run, without Prefect.

    Args:
        locations: data root and registry.
        workers: processes that make episodes.
    """

    def __init__(self, locations: Locations, workers: int) -> None:
        self.locations = locations
        self._workers = workers

    def train_agent(self, plan: TrainingPlan, hear: Callable[[Event], None]) -> None:
        """See :class:`TrainingSteps`."""
        tried_again(functools.partial(run_training, plan, hear))

    def make_episodes(self, work: GenerationWork) -> Report:
        """See :class:`TrainingSteps`."""
        return carry_out(work, LocalSteps(self.locations, self._workers))

    def export(self, out: str, experiment: str) -> ExportReport:
        """See :class:`TrainingSteps`."""
        return export_all(out, "rlhfblender", [experiment], ExportOptions(), LocalRunner(), self.locations)


def run_training(plan: TrainingPlan, hear: Callable[[Event], None]) -> None:
    """Trains in a process of its own, and has each event heard.

    Raises:
        RLHFBlenderError: see :func:`~rlhfblender_core.train.process.training_process`.
    """
    with training_process(plan.job, plan.record) as events:
        for event in events:
            hear(event)
