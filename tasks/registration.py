"""Tasks that put environments and experiments into the registry. Idempotent: nothing is written twice."""

from collections.abc import Mapping, Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from rlhfblender_core.dataset.publish import index_published
from rlhfblender_core.dataset.published import Published
from rlhfblender_core.registry import CheckpointRecord, EnvironmentRecord, ExperimentRecord, open_registry
from rlhfblender_core.report.summary import CheckpointReport, report_checkpoint
from tasks.config import Locations
from tasks.retries import RETRY_TRANSIENT


@task(  # not cached: asking the registry is the cheapest way to know
    name="ensure-env-registered",
    task_run_name="ensure-env-registered {environment.env_id}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def ensure_env_registered(environment: EnvironmentRecord, locations: Locations) -> None:
    """Registers the environment, or makes sure that it is registered like this."""
    with open_registry(locations.database_url, reached_before=True) as registry:
        registered = registry.ensure_environment(environment)
    get_run_logger().info(
        "Environment %s is registered (%s)", registered.env_id, registered.entry_point or "by package"
    )


@task(
    name="ensure-experiment-registered",
    task_run_name="ensure-experiment-registered {experiment.name}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def ensure_experiment_registered(
    experiment: ExperimentRecord, checkpoints: Sequence[CheckpointRecord], locations: Locations, *, replace: bool
) -> None:
    """Registers the experiment with its project and checkpoints, or makes sure that it is registered like this."""
    with open_registry(locations.database_url, reached_before=True) as registry:
        registered = registry.ensure_experiment(experiment, replace_settings=replace)
        for checkpoint in checkpoints:
            registry.ensure_checkpoint(checkpoint)
    get_run_logger().info("Experiment %s is registered in project %s", registered.name, registered.project)


@task(  # not cached: comparing with the registry is the cheapest way to know
    name="index-episodes",
    task_run_name="index-episodes {before.key.checkpoint}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def index_episodes(
    before: Published, num_episodes: int, made: int, failed: Mapping[int, str], locations: Locations
) -> CheckpointReport:
    """What is published of a checkpoint in numbers, after making sure that the registry knows all of it."""
    with open_registry(locations.database_url, create=False, reached_before=True) as registry:
        published = index_published(locations.open_root(), registry, before)
    return report_checkpoint(published, num_episodes, made, failed)
