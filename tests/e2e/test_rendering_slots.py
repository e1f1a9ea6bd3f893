"""The limit ``rendering``: so many runs roll out at once, whoever started them; the others wait, and go on."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.deploying import REPOSITORY, Team, kill_tree, wait_for

pytestmark = [pytest.mark.xdist_group("deployments"), pytest.mark.timeout(600)]


@pytest.fixture
def one_slot(team: Team) -> Iterator[None]:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

    def set_limit(limit: int) -> None:
        with team.client() as client:
            client.update_global_concurrency_limit("rendering", GlobalConcurrencyLimitUpdate(limit=limit))

    with team.client() as client:
        before = client.read_global_concurrency_limit_by_name("rendering").limit
    set_limit(1)
    yield
    set_limit(before)


def start(team: Team, experiment: str, episodes: int) -> "subprocess.Popen[bytes]":
    """A command on the team's server; what it prints is in a log file."""
    flags = f"--env CartPole-v1 --random --exp {experiment} --num-episodes {episodes}"
    with (team.folder / f"{experiment}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "flows" / "generate.py"), *flags.split()],
            cwd=team.folder,
            env=team.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def says_that_it_waits(team: Team, experiment: str) -> list[str]:
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    runs = [run.id for run in team.flow_runs() if f"exp:{experiment}" in run.tags]
    if not runs:
        return []
    with team.client() as client:
        logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=runs)))
    return [log.message for log in logs if log.message.startswith("Waiting for a rendering slot")]


_HOLDER = """
import sys
from prefect.concurrency.sync import concurrency
with concurrency("rendering", lease_duration=60):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def slot_held(team: Team) -> Iterator[None]:
    """As a run holds it, by another process: in this one Prefect would send all later events to the team's server."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER], env=team.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()


@pytest.mark.soak
@pytest.mark.usefixtures("one_slot")
def test_a_run_waits_for_a_slot_and_goes_on_when_it_is_free(team: Team) -> None:
    with slot_held(team):
        waiting = start(team, "waits-for-a-slot", 1)
        log = team.folder / "waits-for-a-slot.log"
        (message,) = wait_for(lambda: says_that_it_waits(team, "waits-for-a-slot"), 120, log)
        assert message == "Waiting for a rendering slot: held by 1 run"
        time.sleep(2)
        assert waiting.poll() is None
        assert team.episodes("waits-for-a-slot") == 0
    assert waiting.wait(120) == 0
    assert team.episodes("waits-for-a-slot") == 1


@pytest.mark.soak
@pytest.mark.usefixtures("one_slot")
def test_a_killed_runs_slot_is_free_again(team: Team) -> None:
    first = start(team, "killed-with-a-slot", 9000)
    wait_for(lambda: team.episodes("killed-with-a-slot"), 120, team.folder / "killed-with-a-slot.log")
    second = start(team, "inherits-a-slot", 1)
    wait_for(lambda: says_that_it_waits(team, "inherits-a-slot"), 120, team.folder / "inherits-a-slot.log")
    kill_tree(first)
    killed = time.monotonic()
    assert second.wait(200) == 0
    print(f"Went on {time.monotonic() - killed:.0f} s after its holder was killed.")
    assert team.episodes("inherits-a-slot") == 1
    with team.client() as client:
        assert client.read_global_concurrency_limit_by_name("rendering").active_slots == 0
