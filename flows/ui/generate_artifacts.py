"""What Prefect's UI shows of a generate run: tags, progress, a table of results, a picture of the agents.

All of it is a view. A run whose data is published doesn't fail because its picture couldn't be stored.
"""

import base64
import contextlib
import contextvars
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run as current_run

from flows.cli.next_commands import with_place
from flows.cli.tables import HEADINGS, next_steps, notes, row_of
from rlhfblender_core.dataset.layout import RANDOM, ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.errors import RLHFBlenderError, one_line
from rlhfblender_core.locations import Locations
from rlhfblender_core.planning.plan import GenerationPlan
from rlhfblender_core.registry import open_registry
from rlhfblender_core.report.charts import CheckpointReturn, draw_contact_sheet, draw_returns
from rlhfblender_core.report.summary import Report
from rlhfblender_core.storage import LARGE_BYTES, DataRoot, read_many
from rlhfblender_core.wording import in_markdown
from rlhfblender_core.workers.progress import read_progress

#: The server gets no more than one update of a run's progress a second.
_PROGRESS_SECONDS = 1.0
#: Pictures on the contact sheet: so many checkpoints, spread over all, and so many episodes of each.
_SHEET_CHECKPOINTS, _SHEET_EPISODES = 12, 6


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Logs, instead of raising, that something for the eye couldn't be stored."""
    try:
        yield
    except (RLHFBlenderError, PrefectException, httpx.HTTPError) as error:
        get_run_logger().warning("No %s in the UI: %s", what, one_line(error))


def tag_run(plan: GenerationPlan) -> None:
    """Gives the flow run its environment, experiment and project as tags, to filter by."""
    tags = [f"env:{plan.environment.env_id}"]
    if plan.experiment is not None:
        tags += [f"exp:{plan.experiment.name}", f"project:{plan.experiment.project}"]
    run_id = current_run.id
    if run_id is None:
        return
    with optional("tags"), get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(run_id)), tags=sorted({*current_run.tags, *tags}))


@contextlib.contextmanager
def progress_in_ui(folder: Path, episodes: int, of: str) -> Iterator[None]:
    """Keeps a progress bar on the run's page up to date until the context is left.

    Args:
        folder: where the workers count, see :func:`read_progress`.
        episodes: how many there will be.
        of: checkpoint that they are of, where the run makes more; else empty.
    """
    bar: object = None
    heading = f"{of}: " if of else ""
    with optional("progress"):
        bar = create_progress_artifact(0.0, description=f"{heading}0 of {episodes} episodes")
    if not isinstance(bar, UUID):
        yield
        return
    stop = threading.Event()
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run,
        args=(_keep_updated, bar, heading, folder, episodes, stop),
        name="progress-in-ui",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _keep_updated(bar: UUID, heading: str, folder: Path, episodes: int, stop: threading.Event) -> None:
    shown, last = 0, False
    while not last:
        last = stop.wait(_PROGRESS_SECONDS)
        steps, done = read_progress(folder)
        if done != shown or last:
            shown = min(done, episodes)
            text = f"{heading}{shown} of {episodes} episodes, {steps:,} steps"
            with optional("progress"):
                update_progress_artifact(bar, 100.0 * shown / episodes, text)


def show_in_ui(plan: GenerationPlan, report: Report, locations: Locations) -> None:
    """Stores the table of results and the picture with the run; both are versioned by experiment."""
    experiment = report.experiment
    if experiment is None or not report.checkpoints:
        return
    title = f"{experiment} · {plan.environment.env_id}"
    with optional("table of results"):
        create_table_artifact(
            [dict(zip(HEADINGS, row_of(row), strict=True)) for row in report.checkpoints],
            key=artifact_key("results", experiment),
            description=f"{title}: results per checkpoint",
        )
    with optional("picture"):
        create_markdown_artifact(
            overview(plan, experiment, report, locations),
            key=artifact_key("overview", experiment),
            description=f"{title}: episodes, returns, files",
        )


def artifact_key(kind: str, experiment: str) -> str:
    """A name that Prefect accepts: lower case, digits and dashes."""
    return "-".join(re.findall(r"[a-z0-9]+", f"{kind}-{experiment}".lower()))


def overview(plan: GenerationPlan, experiment: str, report: Report, locations: Locations) -> str:
    """The run as markdown: plot, contact sheet, where the files are."""
    root = locations.open_root()
    labels = [row.checkpoint for row in report.checkpoints]
    plot = draw_returns(_returns(locations, experiment), "Return per checkpoint: mean ± standard deviation")
    # What a run has found finished, it doesn't read again.
    sheet = (
        draw_contact_sheet(_thumbnails(root, experiment, _spread(labels)))
        if report.has_videos and report.made
        else None
    )
    project = plan.experiment.project if plan.experiment else ""
    parts = [f"## {experiment}", f"Environment `{plan.environment.env_id}` · project {in_markdown(project)}"]
    parts += [f"![Return per checkpoint]({_data_url(plot, 'png')})"] if plot else []
    parts += [f"### Episodes\n\n![Thumbnails]({_data_url(sheet, 'jpeg')})"] if sheet else []
    parts.append("### Files\n\n" + "\n".join(_files(root, experiment, labels)))
    parts.append("\n\n".join(in_markdown(with_place(line)) for line in (*notes(report), *next_steps(report))))
    return "\n\n".join(parts) + "\n"


def _returns(locations: Locations, experiment: str) -> list[CheckpointReturn]:
    """A point per checkpoint of the experiment, this run's and others': the random baseline, steps, best, final."""
    with open_registry(locations.database_url) as registry:
        steps = {record.label: record.step for record in registry.list_checkpoints(experiment)}
        returns = {summary.checkpoint: summary for summary in registry.summarise(experiment)}

    def order(label: str) -> tuple[bool, bool, int, str]:
        step = steps.get(label)
        return label != RANDOM, step is None, step or 0, label

    ordered = sorted(returns, key=order)
    return [CheckpointReturn(label, returns[label].mean_return, returns[label].std_return) for label in ordered]


def _spread(labels: Sequence[str]) -> list[str]:
    """At most so many of them as the sheet has lines, the first and the last among them."""
    if len(labels) <= _SHEET_CHECKPOINTS:
        return list(labels)
    last = len(labels) - 1
    return [labels[round(line * last / (_SHEET_CHECKPOINTS - 1))] for line in range(_SHEET_CHECKPOINTS)]


def _thumbnails(root: DataRoot, experiment: str, labels: Sequence[str]) -> dict[str, list[bytes]]:
    kind = ArtifactKind.THUMBNAILS
    rows = {}
    for label in labels:
        paths = [artifact_path(kind, EpisodeKey(experiment, label, number)) for number in range(_SHEET_EPISODES)]
        contents = read_many(root, paths, most=LARGE_BYTES)
        rows[label] = [contents[path] for path in paths if path in contents]
    return rows


def _files(root: DataRoot, experiment: str, labels: Sequence[str]) -> Iterator[str]:
    yield "| files | where |\n|---|---|"
    locations = f"{labels[0]}" if len(labels) == 1 else "<checkpoint>"
    for kind in ArtifactKind:
        yield f"| {kind} | `{root.display_url(f'{kind}/{experiment}/{locations}/')}` |"


def _data_url(content: bytes, image_format: str) -> str:
    return f"data:image/{image_format};base64,{base64.b64encode(content).decode()}"
