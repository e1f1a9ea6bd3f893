"""Tasks that put environments and experiments into the registry. Idempotent: nothing is written twice.

Not cached: asking the registry is the cheapest way to know.
"""

from collections.abc import Sequence

from prefect import get_run_logger

from rlhfblender_core.locations import Locations
from rlhfblender_core.registry import CheckpointRecord, EnvironmentRecord, EpisodeRecord, ExperimentRecord
from rlhfblender_core.report.summary import CheckpointOutcome, CheckpointReport
from rlhfblender_core.steps import index_rows, register_environment, register_experiment, report_on
from rlhfblender_core.wording import counted
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


@task_for(index_rows, "index-episodes")
def index_episodes(rows: Sequence[EpisodeRecord], locations: Locations) -> None:
    """Writes the index's rows of episodes that the registry doesn't know."""
    index_rows(rows, locations)
    get_run_logger().info("%s had no row, or an older version's, and have one now", counted(len(rows), "episode"))


@task_for(report_on, "report", "report {experiment}")
def report(
    experiment: str, num_episodes: int, outcomes: Sequence[CheckpointOutcome], locations: Locations
) -> tuple[CheckpointReport, ...]:
    """What exists of the checkpoints, in numbers."""
    return report_on(experiment, num_episodes, outcomes, locations)
