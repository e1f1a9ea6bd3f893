"""When and how tasks are tried again: only for what is transient, with exponential backoff and jitter."""

from datetime import UTC, datetime
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


#: After so many seconds of one task nothing is tried again: a storage that is gone for good ends the run soon.
_PATIENCE_S = 60.0


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether the task failed with a :class:`TransientError`."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def is_transient_and_young(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether the task failed with a :class:`TransientError`, and hasn't been trying for long."""
    started = run.start_time
    is_young = started is None or (datetime.now(UTC) - started).total_seconds() < _PATIENCE_S
    return is_young and is_transient(task, run, state)


#: 1, 2, 4, 8, 16 seconds, each up to half as much again: longer than a database takes to restart.
RETRY_TRANSIENT = RetryOptions(
    retries=5,
    retry_delay_seconds=exponential_backoff(1),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient_and_young,
)

#: The same for tasks that may take hours: what happened long after their start is worth another try too.
RETRY_LONG = RetryOptions(
    retries=5,
    retry_delay_seconds=exponential_backoff(1),
    retry_jitter_factor=0.5,
    retry_condition_fn=is_transient,
)
