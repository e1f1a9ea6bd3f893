"""How many runs render at the same time, whoever started them: Prefect's global concurrency limit ``rendering``.

``make deploy`` makes the limit; the UI changes it. It counts runs, not shards: a task that has to wait for a slot asks
again after up to half a minute, in which two workers could have rendered a hundred episodes (measured: a limit on the
tasks' tag made a run of 10 s last 33 s).
"""

import contextlib
from collections.abc import Iterator

from prefect import get_client, get_run_logger
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectNotFound

from rlhfblender_core.wording import counted

RENDERING = "rendering"

#: A killed run's slot is free again after so many seconds.
_LEASE_SECONDS = 60


@contextlib.contextmanager
def rendering_slot() -> Iterator[None]:
    """Holds one of the server's slots for rendering; waits for one, and says so. No limit: no waiting."""
    if not _limit_exists():
        yield
        return
    with concurrency(RENDERING, lease_duration=_LEASE_SECONDS):
        yield


def _limit_exists() -> bool:
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(RENDERING)
        except ObjectNotFound:
            return False
    if limit.active and limit.active_slots >= limit.limit:
        get_run_logger().info("Waiting for a rendering slot: held by %s", counted(limit.active_slots, "run"))
    return True
