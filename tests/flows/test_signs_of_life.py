"""Runs that are started by hand say that they are alive, while they are."""

import time
from typing import Any

import pytest
from prefect import flow, get_client

from flows import signs_of_life
from flows.cli.arguments import run_flow

pytestmark = pytest.mark.usefixtures("prefect")


@flow(name="breathing", **signs_of_life.SIGNS_OF_LIFE)
def breathing(*, fails: bool) -> int:
    time.sleep(1.0)
    if fails:
        raise ValueError("out of breath")
    return 1


def heartbeats(flow_run: Any) -> int:
    wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{flow_run}"]}}
    with get_client(sync_client=True) as client:
        answer = client._client.post("/events/filter", json={"filter": wanted})
    answer.raise_for_status()
    return int(answer.json()["total"])


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_breathes_until_it_is_over(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs_of_life, "_EVERY_S", 0.2)
    state = run_flow(breathing, fails=fails)
    assert state.is_failed() == fails
    assert signs_of_life._stops == {}
    found, deadline = 0, time.monotonic() + 30
    while found < 3 and time.monotonic() < deadline:  # the server stores events with a delay
        time.sleep(0.5)
        found = heartbeats(state.state_details.flow_run_id)
    assert 3 <= found <= 8
    time.sleep(1.5)
    assert heartbeats(state.state_details.flow_run_id) <= 8
