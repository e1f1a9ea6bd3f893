"""A run that a person stopped says so in Prefect's UI; a run of a worker that is interrupted stays a crash."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.rollout.seeding import episode_seed
from tests.conftest import REPOSITORY

COUNTING = ("--env", "Mine-v0", "--env-gym-entrypoint", "tests.support.environments_for_tests.counting:Counting")


def state_of(name: str) -> Any:
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return run.state


@pytest.mark.usefixtures("prefect")
def test_ctrl_c_is_the_state_of_the_run(tmp_path: Path, prefect_server: str) -> None:
    marker = tmp_path / "hanging"
    events = f"hang@{episode_seed(0, 3)}:2:{marker}"
    command = [
        sys.executable,
        str(REPOSITORY / "flows" / "generate.py"),
        *COUNTING,
        "--random",
        "--exp",
        "stopped-here",
    ]
    with subprocess.Popen(
        [*command, "--num-episodes", "6", "--no-render", "--data-root", str(tmp_path / "data")],
        env={**os.environ, "PREFECT_API_URL": prefect_server, "ENVIRONMENTS_FOR_TESTS_EVENTS": events},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not marker.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "error: Stopped. What is published stays; run the same command again to finish.\n"
    state = state_of("generate stopped-here random")
    assert (state.name, state.message) == ("Stopped", "Stopped by Ctrl-C. What is published stays.")
    assert state.is_cancelled()


@pytest.mark.usefixtures("prefect")
def test_an_interrupt_that_no_person_sent_to_a_command_is_no_stop() -> None:
    from flows.execution.data_flow import data_flow

    def interrupted() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data_flow("interrupted", lambda: "interrupted by nobody")(interrupted)(return_state=True)
    assert state_of("interrupted by nobody").is_crashed()
