"""Tasks of the flow ``export``: hand checkpoints over to RLHF-Blender's server or to Minari."""

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from rlhfblender_core.export import (
    CheckpointReport,
    ExperimentSource,
    MinariCheckpoint,
    RewardsKind,
    ServerCheckpoint,
    ServerExperiment,
    export_checkpoint,
    export_minari_checkpoint,
    find_experiments,
    finish_server_export,
    left_behind,
    plan_server_export,
)
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import open_data_root
from rlhfblender_core.wording import counted
from tasks.config import Locations, storage_options
from tasks.retries import RETRY_TRANSIENT


@task(name="find-experiments", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def find_sources(experiments: Sequence[str], locations: Locations) -> tuple[ExperimentSource, ...]:
    """The experiments to export, with their environments and the checkpoints that have episodes."""
    with open_registry(locations.database_url, create=False) as registry:
        return find_experiments(locations.open_root(), registry, experiments)


@task(name="number-experiments", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def number_experiments(
    sources: Sequence[ExperimentSource], out: str, rewards: RewardsKind
) -> tuple[ServerExperiment, ...]:
    """The experiments with the ids and numbers by which RLHF-Blender's server knows them."""
    return plan_server_export(open_data_root(out), sources, rewards, storage_options())


@task(  # not cached: comparing with what was exported is the cheapest way to know
    name="export-checkpoint",
    task_run_name="export-checkpoint {checkpoint.key.experiment} {checkpoint.key.checkpoint}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def export_to_server(checkpoint: ServerCheckpoint, out: str, locations: Locations) -> CheckpointReport:
    """Writes a checkpoint's episodes in RLHF-Blender's layout."""
    report = export_checkpoint(locations.open_root(), open_data_root(out), checkpoint)
    _log(report)
    return report


@task(name="write-server-database", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def finish_for_server(experiments: Sequence[ServerExperiment], out: str, locations: Locations) -> tuple[str, ...]:
    """Writes pictures of actions, and the database last; names the experiments there that are registered no more."""
    target = open_data_root(out)
    finish_server_export(locations.open_root(), target, experiments)
    with open_registry(locations.database_url, create=False) as registry:
        return left_behind(target, [record.name for record in registry.list_experiments()])


@task(
    name="export-to-minari",
    task_run_name="export-to-minari {checkpoint.dataset_id}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def export_to_minari(checkpoint: MinariCheckpoint, out: str, locations: Locations) -> CheckpointReport:
    """Writes a checkpoint's episodes as a Minari data set."""
    report = export_minari_checkpoint(locations.open_root(), open_data_root(out), checkpoint)
    _log(report)
    return report


def _log(report: CheckpointReport) -> None:
    written = counted(report.made, "episode")
    get_run_logger().info("%s: %s written, %d there already", report.place, written, report.there)
