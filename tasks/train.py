"""The task of the flow ``train`` that waits for the training process, and hears how it goes."""

from collections.abc import Callable

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from rlhfblender_core.train.job import CheckpointWritten, Event, Started
from rlhfblender_core.train.request import TrainingPlan
from rlhfblender_core.train.run import run_training
from tasks.retries import RETRY_LONG


@task(
    name="train-agent",
    task_run_name="train-agent {experiment} to {total_timesteps}",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRY_LONG,
)
def train_agent(experiment: str, total_timesteps: int, plan: TrainingPlan, hear: Callable[[Event], None]) -> None:
    """Trains in a process of its own to the end; one that was killed goes on from its last checkpoint.

    Raises:
        RLHFBlenderError: the training can't be made, or failed.
    """
    logger = get_run_logger()

    def log(event: Event) -> None:
        if isinstance(event, Started):
            logger.info("%s: training from step %d to %d", experiment, event.step, total_timesteps)
        elif isinstance(event, CheckpointWritten):
            logger.info("%s: checkpoint %d is written", experiment, event.step)
        hear(event)

    run_training(plan, log)
