"""How parameters are handed to tasks."""

from typing import TypeVar, cast

from prefect.utilities.annotations import quote

T = TypeVar("T")


def quoted(value: T) -> T:
    """The value as a task's parameter that Prefect doesn't search for futures, manifest by manifest.

    The task gets the value itself. Searching a shard's manifests took longer than writing them. Only for tasks that are
    called, not submitted: on clusters the wrapping would arrive.
    """
    return cast("T", quote(value))
