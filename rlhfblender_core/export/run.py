"""Exporting: experiments are looked up, each checkpoint's episodes brought up to date, what shows them comes last."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhfblender_core.argument_types import check_arguments
from rlhfblender_core.dataset.selection import parse_selection
from rlhfblender_core.export.formats import FORMATS, CheckpointJob, ExportFormat, ExportOptions
from rlhfblender_core.export.hub import hub_repository, push_to_hub
from rlhfblender_core.export.index import locked
from rlhfblender_core.export.request import (
    CheckpointExport,
    ExperimentSource,
    RewardsKind,
    find_experiments,
    open_target,
)
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.registry import open_registry
from rlhfblender_core.step_runner import LocalRunner, StepRunner, concurrency_for
from rlhfblender_core.storage import open_data_root
from rlhfblender_core.wording import InWords, counted


@dataclass(frozen=True)
class ExportReport(InWords):
    """What was exported.

    Attributes:
        to: the format.
        folder: the export.
        checkpoints: what came of each.
        left_behind: experiments of earlier exports that aren't registered any more; they stay there.
        pushed: where it was pushed to.
    """

    to: ExportFormat
    folder: str
    checkpoints: tuple[CheckpointExport, ...]
    left_behind: tuple[str, ...] = ()
    pushed: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether there were episodes to export, and none was left out."""
        is_any = any(report.made + report.existing for report in self.checkpoints)
        return is_any and not any(report.left_out for report in self.checkpoints)

    @property
    def summary(self) -> str:
        """What was exported, what wasn't, what is there besides, and what to do with it: lines."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for report in self.checkpoints:
            for reason, count in report.left_out.items():
                episodes = counted(count, "episode")
                yield f"left out: {report.key.experiment} at {report.key.checkpoint}, {episodes}, each {reason}"
            for reason, count in report.stateless.items():
                where = f"{report.key.experiment} at {report.key.checkpoint}, {counted(count, 'episode')}"
                yield f"without states for demonstrations: {where}, each: {reason}"
        made, existing = sum(report.made for report in self.checkpoints), sum(r.existing for r in self.checkpoints)
        yield f"{counted(made, 'episode')} exported, {existing} there already, in {self.folder}"
        for name in self.left_behind:
            yield f"{name} is in {self.folder} from an earlier export and isn't registered any more; it stays there."
        if made + existing:
            yield from FORMATS[self.to].advice(self.folder, self.checkpoints)
        if self.pushed:
            yield f"Pushed to {self.pushed}; a repository that is new is private."


@check_arguments
def export(  # noqa: PLR0913 (one per flag)
    out: str,
    *,
    to: ExportFormat = "rlhfblender",
    exp: Sequence[str] = (),
    checkpoints: Sequence[int | str] = (),
    episodes: str | None = None,
    where: str | None = None,
    rewards: RewardsKind = "per-step",
    env_states: bool | None = None,
    push_to: str | None = None,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Exports the experiments' episodes, without Prefect; those that are exported already are left as they are.

    Args:
        out: folder to export to, made if needed; an earlier export is continued.
        to: the format.
        exp: experiments; none for all that have episodes.
        checkpoints: labels; none for all.
        episodes: which of their episodes, e.g. ``3,5-9``; None for all.
        where: a condition that they meet, e.g. ``return > 100 and length < 500``; None for none.
        rewards: what RLHF-Blender's plots of rewards show.
        env_states: whether its demonstrations can start in the middle of episodes; None where that costs little.
        push_to: repository on the Hugging Face Hub that the export goes to besides: ``hf://datasets/<user>/<name>``.
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.

    Raises:
        RequestError: with what is wrong and what to do.
        TransientError: the storage or the registry is gone.
    """
    locations = locate(data_root, database_url, storage_options)
    selection = parse_selection(episodes, where)
    options = ExportOptions(rewards, env_states, tuple(map(str, checkpoints)), selection, push_to)
    return export_all(out, to, exp, options, LocalRunner(), locations)


def export_all(
    out: str, to: ExportFormat, exp: Sequence[str], options: ExportOptions, runner: StepRunner, locations: Locations
) -> ExportReport:
    """Exports by the runner's steps; see :func:`export`."""
    target = open_target(out, locations.open_root())
    if options.push_to is not None:
        hub_repository(options.push_to, to)
    sources = runner.do(find_sources, exp, options, locations)
    with locked(target):
        jobs = runner.do(plan_export, to, sources, target.url, options, locations)
        same = {"to": to, "out": target.url, "options": options, "locations": locations}
        calls = ({"checkpoint": job, **same} for job in jobs)
        reports = runner.do_each(export_checkpoint, calls, concurrency_for(locations))
        behind = runner.do(finish_export, to, sources, target.url, options, locations)
        pushed = None
        if options.push_to is not None:
            pushed = runner.do(push_export, to, reports, target.url, options, locations)
    return ExportReport(to, str(target.local_folder), tuple(reports), behind, pushed)


def check_export(out: str, to: ExportFormat, exp: Sequence[str], options: ExportOptions, locations: Locations) -> None:
    """Refuses a wrong request; writes nothing.

    Raises:
        RequestError: with what is wrong and what to do.
    """
    open_target(out, locations.open_root())
    if options.push_to is not None:
        hub_repository(options.push_to, to)
    FORMATS[to].check(find_sources(exp, options, locations), locations)


def find_sources(
    experiments: Sequence[str], options: ExportOptions, locations: Locations
) -> tuple[ExperimentSource, ...]:
    """The experiments to export, with their environments and the checkpoints that have episodes."""
    with open_registry(locations.database_url, create=False) as registry:
        return find_experiments(locations.open_root(), registry, experiments, options.checkpoints)


def plan_export(
    to: ExportFormat, sources: Sequence[ExperimentSource], out: str, options: ExportOptions, locations: Locations
) -> Sequence[CheckpointJob]:
    """The checkpoints, with the ids and numbers by which the format knows them."""
    return FORMATS[to].plan(sources, open_data_root(out), options, locations)


def export_checkpoint(
    to: ExportFormat, checkpoint: CheckpointJob, out: str, options: ExportOptions, locations: Locations
) -> CheckpointExport:
    """Brings a checkpoint's episodes in the export up to date."""
    return FORMATS[to].export(locations.open_root(), open_data_root(out), checkpoint, options.selection)


def finish_export(
    to: ExportFormat, sources: Sequence[ExperimentSource], out: str, options: ExportOptions, locations: Locations
) -> tuple[str, ...]:
    """Writes what comes last; names experiments of earlier exports that aren't registered any more."""
    return FORMATS[to].finish(sources, open_data_root(out), options, locations)


def push_export(
    to: ExportFormat, reports: Sequence[CheckpointExport], out: str, options: ExportOptions, locations: Locations
) -> str:
    """Pushes the exported data sets to the Hugging Face Hub; returns where they are."""
    target, root = open_data_root(out), locations.open_root()
    return push_to_hub(options.push_to or "", to, reports, target, root, options.selection)
