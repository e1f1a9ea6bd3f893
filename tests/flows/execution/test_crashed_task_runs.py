"""Task runs that a killed run left behind on Prefect's server."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.execution import crashed_task_runs
from flows.verify import verify

pytestmark = pytest.mark.usefixtures("prefect")


def left_behind(*, over: bool) -> Any:
    """A task run that is "Running" in a run of verify which is over, or isn't."""
    from prefect import get_client, task
    from prefect.states import Crashed, Running

    @task(name="check-episodes")
    def check() -> None:
        pass

    with get_client(sync_client=True) as client:
        run = client.create_flow_run(verify, state=Running())
        left = client.create_task_run(check, run.id, dynamic_key="0", state=Running())
        if over:
            client.set_flow_run_state(run.id, Crashed())
    return left.id


def state_of(task_run: Any) -> Any:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return client.read_task_run(task_run).state


def test_the_flows_next_run_ends_them(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_root.mkdir()
    lost, going_on = left_behind(over=True), left_behind(over=False)
    assert verify(data_root=str(data_root), return_state=True).is_completed()
    assert state_of(lost).is_running(), "its state may still be on its way to the server"
    monkeypatch.setattr(crashed_task_runs, "_DELAY", timedelta(seconds=-1))
    assert verify(data_root=str(data_root), return_state=True).is_completed()
    assert (state_of(lost).name, state_of(lost).message) == ("Crashed", "Its run was lost.")
    assert state_of(going_on).is_running()
