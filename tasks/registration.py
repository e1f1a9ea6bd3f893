"""Tasks that put environments and experiments into the registry. Idempotent: nothing is written twice.

Not cached: asking the registry is the cheapest way to know.
"""

from collections.abc import Mapping, Sequence

from prefect import get_run_logger

from rlhfblender_core.dataset.published import Published
from rlhfblender_core.locations import Locations
from rlhfblender_core.registry import CheckpointRecord, EnvironmentRecord, ExperimentRecord
from rlhfblender_core.report.summary import CheckpointReport
from rlhfblender_core.steps import index_and_report, register_environment, register_experiment
from tasks.steps import task_for


@task_for(register_environment, "ensure-env-registered", "ensure-env-registered {environment.env_id}")
def ensure_env_registered(environment: EnvironmentRecord, locations: Locations) -> EnvironmentRecord:
    """Registers the environment, or makes sure that it is registered like this."""
    registered = register_environment(environment, locations)
    origin = registered.entry_point or "by package"
    get_run_logger().info("Environment %s is registered (%s)", registered.env_id, origin)
    return registered


@task_for(register_experiment, "ensure-experiment-registered", "ensure-experiment-registered {experiment.name}")
def ensure_experiment_registered(
    experiment: ExperimentRecord, checkpoints: Sequence[CheckpointRecord], locations: Locations, *, replace: bool
) -> ExperimentRecord:
    """Registers the experiment with its project and checkpoints, or makes sure that it is registered like this."""
    registered = register_experiment(experiment, checkpoints, locations, replace=replace)
    get_run_logger().info("Experiment %s is registered in project %s", registered.name, registered.project)
    return registered


@task_for(index_and_report, "index-episodes", "index-episodes {before.key.checkpoint}")
def index_episodes(
    before: Published, num_episodes: int, made: int, failed: Mapping[int, str], locations: Locations
) -> CheckpointReport:
    """What is published of a checkpoint in numbers, after making sure that the registry knows all of it."""
    return index_and_report(before, num_episodes, made, failed, locations)
