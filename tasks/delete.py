"""Tasks of the flow ``delete``, found by the steps that they wrap. All may be repeated, after a failure or a kill."""

from prefect import get_run_logger

from rlhfblender_core.delete import CheckpointDeletion, Deletion, delete_episodes, forget_experiment
from rlhfblender_core.locations import Locations
from rlhfblender_core.wording import counted
from tasks.steps import task_for


@task_for(delete_episodes, "delete-checkpoint", "delete-checkpoint {deletion.key.checkpoint}")
def _delete_episodes(deletion: CheckpointDeletion, locations: Locations) -> None:
    delete_episodes(deletion, locations)
    get_run_logger().info("%s: %s deleted", deletion.key.checkpoint, counted(deletion.episodes, "episode"))


@task_for(forget_experiment, "forget-experiment")
def _forget_experiment(deletion: Deletion, locations: Locations) -> None:
    forget_experiment(deletion, locations)
