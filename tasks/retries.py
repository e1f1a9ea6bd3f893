"""When and how tasks are tried again: only for what is transient, with exponential backoff and jitter."""

from typing import Any, TypedDict

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from rlhfblender_core.errors import TransientError


class RetryOptions(TypedDict):
    """Options of ``prefect.task`` that have to do with trying again."""

    retries: int
    retry_delay_seconds: Any
    retry_jitter_factor: float
    retry_condition_fn: Any


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether the task failed with a :class:`TransientError`."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


#: 1, 2, 4, 8 seconds, each up to half as much again.
RETRY_TRANSIENT = RetryOptions(
    retries=4,
    retry_delay_seconds=exponential_backoff(1),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
)
