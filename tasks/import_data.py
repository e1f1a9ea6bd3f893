"""The tasks that import episodes which were made elsewhere."""

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from rlhfblender_core.dataset.publish import episode_record
from rlhfblender_core.dataset.published import read_published
from rlhfblender_core.import_data import ImportedBatch, ImportPlan, import_action_labels, import_episodes
from rlhfblender_core.import_data.episodes import ImportTarget
from rlhfblender_core.import_data.sources import SourceCheckpoint
from rlhfblender_core.registry import open_registry
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.wording import counted
from tasks.config import Locations
from tasks.retries import RETRY_TRANSIENT


@task(  # not cached: what is published is found by its manifest
    name="import-episodes",
    task_run_name="import-episodes {target.key.checkpoint} · {numbers}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def import_batch(
    source: SourceCheckpoint, numbers: Sequence[int], target: ImportTarget, locations: Locations
) -> ImportedBatch:
    """Checks, converts and publishes these episodes of a checkpoint."""
    root = locations.open_root()
    with open_run(root, target.key.experiment) as run:
        batch = import_episodes(root, source, numbers, target, run.folder)
    for line in batch.faults:
        get_run_logger().warning("%s", line)
    get_run_logger().info("%s: %s imported", target.key.checkpoint, counted(len(batch.made), "episode"))
    return batch


@task(name="import-action-labels", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def import_labels(plan: ImportPlan, locations: Locations) -> tuple[int, tuple[str, ...]]:
    """Stores the source's pictures of actions; returns how many, and what is wrong with others."""
    return import_action_labels(locations.open_root(), plan.folder)


@task(name="index-imported", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def index_imported(plan: ImportPlan, locations: Locations) -> None:
    """Registers the checkpoints' published episodes."""
    root = locations.open_root()
    records = [
        episode_record(manifest)
        for _, target in plan.work
        for manifest in read_published(root, target.key).manifests.values()
    ]
    with open_registry(locations.database_url) as registry:
        registry.record_episodes(records)
    get_run_logger().info("Registered: %s", counted(len(records), "episode"))
