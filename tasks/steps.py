"""Which task wraps which step of a use case."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE

from tasks.retries import RETRY_TRANSIENT

P = ParamSpec("P")
R = TypeVar("R")

_tasks: dict[Callable[..., Any], Task[..., Any]] = {}


def task_for(step: Callable[P, R], name: str, run_name: str | None = None) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Declares a function to be the task that runs the step: it calls it, and logs.

    Not cached: what these steps look at may have changed.

    Args:
        step: function of the core.
        name: of the task.
        run_name: of its runs, with parameters in braces (default the same).
    """

    def declare(function: Callable[P, R]) -> Task[P, R]:
        declared: Task[P, R] = task(
            name=name, task_run_name=run_name or name, cache_policy=NO_CACHE, **RETRY_TRANSIENT
        )(function)
        _tasks[step] = declared
        return declared

    return declare


def task_of(step: Callable[P, R]) -> Task[P, R]:
    """The task that runs the step; its module has to be imported."""
    return cast("Task[P, R]", _tasks[step])
