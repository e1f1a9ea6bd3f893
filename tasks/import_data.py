"""The tasks that import and merge episodes, found by the steps that they wrap."""

from collections.abc import Sequence

from prefect import get_run_logger

import tasks.registration  # noqa: F401 (the tasks of the steps that register)
from rlhfblender_core.import_data.episodes import ImportedBatch, ImportTarget
from rlhfblender_core.import_data.merge_plan import Merge, MergePlan
from rlhfblender_core.import_data.plan import ImportPlan
from rlhfblender_core.import_data.run import (
    import_batch,
    import_labels,
    index_imported,
    index_merged,
    merge_batch,
    merge_labels,
)
from rlhfblender_core.import_data.sources import SourceCheckpoint
from rlhfblender_core.locations import Locations
from rlhfblender_core.runs.claims import RunClaims
from rlhfblender_core.wording import counted
from tasks.steps import task_for


@task_for(import_batch, "import-episodes", "import-episodes {target.key.checkpoint} {numbers}")
def _import_batch(
    source: SourceCheckpoint, numbers: Sequence[int], target: ImportTarget, claims: RunClaims, locations: Locations
) -> ImportedBatch:
    return _logged(import_batch(source, numbers, target, claims, locations))


@task_for(merge_batch, "merge-episodes", "merge-episodes {merge.key.checkpoint} {numbers}")
def _merge_batch(merge: Merge, numbers: Sequence[int], claims: RunClaims, locations: Locations) -> ImportedBatch:
    return _logged(merge_batch(merge, numbers, claims, locations))


def _logged(batch: ImportedBatch) -> ImportedBatch:
    for line in batch.faults:
        get_run_logger().warning("%s", line)
    get_run_logger().info("%s: %s imported", batch.key.checkpoint, counted(len(batch.made), "episode"))
    return batch


@task_for(import_labels, "import-action-labels")
def _import_labels(plan: ImportPlan, locations: Locations) -> tuple[int, tuple[str, ...]]:
    return import_labels(plan, locations)


@task_for(index_imported, "index-imported")
def _index_imported(plan: ImportPlan, locations: Locations) -> None:
    index_imported(plan, locations)


@task_for(merge_labels, "merge-action-labels")
def _merge_labels(plan: MergePlan, locations: Locations) -> int:
    return merge_labels(plan, locations)


@task_for(index_merged, "index-merged")
def _index_merged(plan: MergePlan, locations: Locations) -> None:
    index_merged(plan, locations)
