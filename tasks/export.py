"""Tasks of the flow ``export``: hand checkpoints over. Found by the steps that they wrap."""

from collections.abc import Sequence

from prefect import get_run_logger

from rlhfblender_core.export.formats import CheckpointJob, ExportFormat, ExportOptions
from rlhfblender_core.export.request import CheckpointExport, ExperimentSource
from rlhfblender_core.export.run import export_checkpoint, find_sources, finish_export, plan_export, push_export
from rlhfblender_core.locations import Locations
from rlhfblender_core.wording import counted
from tasks.steps import task_for


@task_for(find_sources, "find-experiments")
def _find_sources(
    experiments: Sequence[str], options: ExportOptions, locations: Locations
) -> tuple[ExperimentSource, ...]:
    return find_sources(experiments, options, locations)


@task_for(plan_export, "plan-export")
def _plan_export(
    to: ExportFormat, sources: Sequence[ExperimentSource], out: str, options: ExportOptions, locations: Locations
) -> Sequence[CheckpointJob]:
    return plan_export(to, sources, out, options, locations)


@task_for(
    export_checkpoint, "export-checkpoint", "export-checkpoint {checkpoint.key.experiment} {checkpoint.key.checkpoint}"
)
def _export_checkpoint(
    to: ExportFormat, checkpoint: CheckpointJob, out: str, options: ExportOptions, locations: Locations
) -> CheckpointExport:
    report = export_checkpoint(to, checkpoint, out, options, locations)
    written = counted(report.made, "episode")
    get_run_logger().info("%s: %s written, %d there already", report.place, written, report.existing)
    return report


@task_for(finish_export, "finish-export")
def _finish_export(
    to: ExportFormat, sources: Sequence[ExperimentSource], out: str, options: ExportOptions, locations: Locations
) -> tuple[str, ...]:
    return finish_export(to, sources, out, options, locations)


@task_for(push_export, "push-export")
def _push_export(
    to: ExportFormat, reports: Sequence[CheckpointExport], out: str, options: ExportOptions, locations: Locations
) -> str:
    return push_export(to, reports, out, options, locations)
