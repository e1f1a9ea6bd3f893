"""The task that makes sure that a checkpoint can act in the environment."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from rlhfblender_core.locations import Locations
from rlhfblender_core.rollout.settings import RolloutSettings
from tasks.retries import RETRY_TRANSIENT
from tasks.run_workers import run_workers_of


@task(  # not cached: the worker that loads it here has it loaded for the episodes
    name="load-checkpoint",
    task_run_name="load-checkpoint {settings.label}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def load_checkpoint(settings: RolloutSettings, locations: Locations, run_id: str) -> RolloutSettings:
    """Loads the checkpoint in a worker and lets it act once, so that nothing is registered for one that can't."""
    with run_workers_of(run_id, locations) as run_workers:
        tried_out = run_workers.check(settings)
    acts_in = settings.environment.env_id
    get_run_logger().info("Checkpoint %s acts in %s: %s", settings.label, acts_in, settings.agent)
    return tried_out
