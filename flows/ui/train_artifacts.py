"""What Prefect's UI shows of a training: how far it has got, and its learning curve, one artifact that grows."""

import base64
import time
from uuid import UUID

from prefect import get_client
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.schemas.actions import ArtifactUpdate

from flows.ui.generate_artifacts import artifact_key, optional
from rlhfblender_core.report.learning_curve import draw_learning_curve
from rlhfblender_core.train.job import CheckpointWritten, CurvePoint, Event, Progress, Started
from rlhfblender_core.train.request import TrainingPlan

#: The server gets an update of the progress, and a picture, this often at most.
_PROGRESS_S, _CURVE_S = 1.0, 10.0


class TrainingInUi:
    """Shows what it hears of a training, on the page of the run in whose context it hears it.

    Args:
        plan: of the training.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self._job, self._note = plan.job, plan.note
        self._bar: UUID | None = None
        self._picture: UUID | None = None
        self._curve: list[CurvePoint] = []
        self._checkpoints: list[int] = []
        self._shown = {_PROGRESS_S: 0.0, _CURVE_S: 0.0}

    @property
    def mean_return(self) -> float | None:
        """The last that was heard of."""
        return next((point.mean_return for point in reversed(self._curve) if point.mean_return is not None), None)

    def hear(self, event: Event) -> None:
        """Takes an event in; shows it where the last update is long enough ago."""
        match event:
            case Started():
                self._curve = list(event.curve)
                self._show_progress(event.step)
            case Progress():
                self._curve += [event.point] if event.point is not None else []
                if self._is_due(_PROGRESS_S):
                    self._show_progress(event.step)
                if event.point is not None and self._is_due(_CURVE_S):
                    self._show_curve()
            case CheckpointWritten():
                self._checkpoints.append(event.step)
                self._show_progress(event.step)
                self._show_curve()

    def _is_due(self, seconds: float) -> bool:
        if time.monotonic() - self._shown[seconds] < seconds:
            return False
        self._shown[seconds] = time.monotonic()
        return True

    def _show_progress(self, step: int) -> None:
        share, text = (
            100.0 * min(1.0, step / self._job.total_timesteps),
            f"{step:,} of {self._job.total_timesteps:,} steps",
        )
        with optional("progress"):
            if self._bar is None:
                bar: object = create_progress_artifact(share, description=f"Training: {text}")
                self._bar = bar if isinstance(bar, UUID) else None
            else:
                update_progress_artifact(self._bar, share, f"Training: {text}")

    def _show_curve(self) -> None:
        text = self._markdown()
        with optional("learning curve"):
            if self._picture is None:
                made: object = create_markdown_artifact(
                    text,
                    key=artifact_key("training", self._job.experiment),
                    description=f"{self._job.experiment}: learning curve",
                )
                self._picture = made if isinstance(made, UUID) else None
            else:
                with get_client(sync_client=True) as client:
                    client.update_artifact(self._picture, ArtifactUpdate(data=text))

    def _markdown(self) -> str:
        returns = [(point.step, point.mean_return) for point in self._curve]
        losses = [(point.step, point.loss) for point in self._curve]
        picture = draw_learning_curve(returns, losses, self._job.total_timesteps)
        written = ", ".join(f"{step:,}" for step in self._checkpoints) or "none yet"
        return (
            f"## {self._job.experiment}\n\n{self._job.algorithm} in `{self._job.spec.env_id}` · {self._note}\n\n"
            f"![Learning curve](data:image/png;base64,{base64.b64encode(picture).decode()})\n\n"
            f"Checkpoints written by this run: {written}, in `{self._job.folder.display_url()}`\n"
        )
