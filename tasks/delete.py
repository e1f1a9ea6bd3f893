"""Tasks of the flow ``delete``. Both may be repeated, after a failure or a kill."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from rlhfblender_core.delete import CheckpointDeletion, Deletion, delete_checkpoint, finish_deletion
from rlhfblender_core.registry import open_existing_registry
from rlhfblender_core.wording import counted
from tasks.config import Locations
from tasks.retries import RETRY_TRANSIENT


@task(
    name="delete-checkpoint",
    task_run_name="delete-checkpoint {deletion.key.checkpoint}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def delete_episodes(deletion: CheckpointDeletion, locations: Locations) -> None:
    """Removes a checkpoint's manifests, then its files, then its rows."""
    registry = open_existing_registry(locations.database_url)
    if registry is None:
        delete_checkpoint(locations.open_root(), None, deletion)
    else:
        with registry:
            delete_checkpoint(locations.open_root(), registry, deletion)
    get_run_logger().info("%s: %s deleted", deletion.key.checkpoint, counted(len(deletion.manifests), "episode"))


@task(name="forget-experiment", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def forget_experiment(deletion: Deletion, locations: Locations) -> None:
    """Removes the experiment's row, where all of it goes."""
    registry = open_existing_registry(locations.database_url)
    if registry is not None:
        with registry:
            finish_deletion(registry, deletion)
