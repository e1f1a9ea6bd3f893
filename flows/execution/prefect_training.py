"""The steps of a training run as Prefect tasks: the training is one, the episodes of its checkpoints are others."""

from collections.abc import Callable
from typing import Any, cast

from flows.cli.progress import current_display
from flows.execution.prefect_steps import PrefectRunner, PrefectSteps
from flows.execution.task_runners import RunnerChoice
from flows.ui.train_artifacts import TrainingInUi
from rlhfblender_core.export.formats import ExportOptions
from rlhfblender_core.export.run import ExportReport, export_all
from rlhfblender_core.generate import carry_out
from rlhfblender_core.locations import Locations
from rlhfblender_core.planning.work import GenerationWork
from rlhfblender_core.report.summary import Report
from rlhfblender_core.train.job import CheckpointWritten, Event
from rlhfblender_core.train.request import TrainingPlan
from tasks.parameters import quoted
from tasks.train import train_agent


class PrefectTrainingSteps:
    """See :class:`rlhfblender_core.train.run.TrainingSteps`.

    Args:
        locations: data root and registry.
        choice: where episodes are rolled out.
    """

    def __init__(self, locations: Locations, choice: RunnerChoice) -> None:
        self.locations = locations
        self._choice = choice

    def train_agent(self, plan: TrainingPlan, hear: Callable[[Event], None]) -> None:
        """See :class:`rlhfblender_core.train.run.TrainingSteps`."""
        page, display, job = TrainingInUi(plan), current_display.get(), plan.job

        def show(event: Event) -> None:
            page.hear(event)
            if isinstance(event, CheckpointWritten):
                mean = page.mean_return
                returns = "" if mean is None else f", mean return {mean:,.1f}"
                display.say(f"Training: {event.step:,} of {job.total_timesteps:,} steps{returns}")
            hear(event)

        train_agent(job.experiment, job.total_timesteps, quoted(plan), cast("Any", quoted(show)))

    def make_episodes(self, work: GenerationWork) -> Report:
        """See :class:`rlhfblender_core.train.run.TrainingSteps`."""
        lacking = [each.settings.label for each in work.checkpoints if each.missing]
        of = lacking[0] if len(lacking) == 1 else ""
        return carry_out(work, PrefectSteps(self.locations, self._choice, of))

    def export(self, out: str, experiment: str) -> ExportReport:
        """See :class:`rlhfblender_core.train.run.TrainingSteps`."""
        return export_all(out, "rlhfblender", [experiment], ExportOptions(), PrefectRunner(), self.locations)
