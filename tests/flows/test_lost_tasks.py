"""Task runs that a killed run left behind on Prefect's server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.verify import verify

pytestmark = pytest.mark.usefixtures("prefect")


def left_behind(*, ended_before: timedelta | None) -> Any:
    """A task run that is "Running" in a run of verify which is over, or isn't."""
    from prefect import get_client, task
    from prefect.states import Crashed, Running

    @task(name="check-episodes")
    def check() -> None:
        pass

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(verify, state=Running())
        left = client.create_task_run(check, run.id, dynamic_key="0", state=Running())
        if ended_before is not None:
            ended = Crashed(timestamp=datetime.now(UTC) - ended_before)
            client.set_flow_run_state(run.id, ended, force=True)
    return left.id


def state_of(task_run: Any) -> Any:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return client.read_task_run(task_run).state


def test_the_flows_next_run_ends_them(data_root: Path) -> None:
    data_root.mkdir()
    lost = left_behind(ended_before=timedelta(minutes=5))
    just_ended = left_behind(ended_before=timedelta(0))
    going_on = left_behind(ended_before=None)
    assert verify(data_root=str(data_root), return_state=True).is_completed()
    assert (state_of(lost).name, state_of(lost).message) == ("Crashed", "Its run was lost.")
    assert state_of(just_ended).is_running()
    assert state_of(going_on).is_running()
