"""Server, deployments and worker as a team runs them: started by make, asked by Prefect's command line."""

import os
import shutil
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.deploying import Team, descendants, kill_tree, wait_for
from tests.support.documented import of

PREFECT = of("prefect", "docs/operations.md")
DEPLOYMENTS = 10
CARTPOLE = ("--param", "env=CartPole-v1", "--param", "random=true")

pytestmark = [
    pytest.mark.xdist_group("deployments"),
    pytest.mark.timeout(600),  # a server, a worker and a command line: minutes on a machine that is busy
    pytest.mark.skipif(shutil.which("make") is None, reason="there is no make"),
]


def command_of(pid: int) -> str:
    return subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout


def test_a_deployment_started_from_the_command_line_makes_data(team: Team) -> None:
    (documented,) = [words for words in PREFECT if words[:2] == ["deployment", "run"]]
    asked = team.prefect(*documented, "--param", "num_episodes=3", "--param", "exp=asked")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert team.episodes("asked") == 3
    (run,) = [run for run in team.flow_runs() if run.name == "generate asked random"]
    assert run.state.message == f"3 episodes made, 0 already there, in {team.data}"
    tags = {"env:CartPole-v1", "exp:asked", "project:RLHF-Blender", "generate"}
    assert set(run.tags) == tags


def test_a_wrong_parameter_is_refused_before_there_is_a_run(team: Team) -> None:
    before = len(team.flow_runs())
    asked = team.prefect("deployment", "run", "generate/on-demand", *CARTPOLE, "--param", "num_episodes=0")
    assert asked.returncode == 1
    assert "0 is less than the minimum of 1" in " ".join((asked.stdout + asked.stderr).split())
    assert len(team.flow_runs()) == before


def refused(team: Team, exp: str) -> list[Any]:
    return [run for run in team.flow_runs() if run.state.name == "Refused" and run.parameters.get("exp") == exp]


def ask_for_no_agent(team: Team, exp: str) -> None:
    flags = ("--param", "env=CartPole-v1", "--param", f"exp={exp}", "--watch")
    assert team.prefect("deployment", "run", "generate/on-demand", *flags).returncode == 1


@pytest.mark.soak
def test_a_run_whose_request_is_wrong_says_so_in_one_line(team: Team) -> None:
    ask_for_no_agent(team, "agentless")
    (run,) = refused(team, "agentless")
    assert run.state.message.startswith("Give --random for a random agent, --model-path")
    assert "\n" not in run.state.message
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    def logged() -> list[str]:
        with team.client() as client:
            logs = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
        return [log.message for log in logs]

    wait_for(
        lambda: any(line.startswith("Finished in state Refused") for line in logged()), 60, team.folder / "worker.log"
    )
    assert run.state.message in logged()
    assert [line for line in logged() if "Traceback" in line or "hook" in line] == []


@pytest.mark.soak
def test_deploying_again_changes_nothing_that_people_changed(team: Team) -> None:
    (update,) = [words for words in PREFECT if words[:2] == ["gcl", "update"]]
    assert team.prefect(*update).returncode == 0
    deployed = team.run(*team.make("deploy"))
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    lines = [line for line in deployed.stdout.splitlines() if not line.startswith("make")]
    assert len(lines) == 1 + DEPLOYMENTS + 2  # a heading, a line each, what to do next and the command for it
    assert ["generate/nightly", "0", "2", "*", "*", "*", "UTC"] in [line.split()[:7] for line in lines]
    with team.client() as client:
        assert client.read_global_concurrency_limit_by_name("rendering").limit == int(update[-1])
        assert len(client.read_automations_by_name("finish-lost-runs")) == 1
        assert len(client.read_deployments()) == DEPLOYMENTS


def test_a_run_that_dies_at_its_third_attempt_is_given_up(team: Team) -> None:
    """The server's part: the run's states are set as a worker sets them whose runs' processes are killed."""
    from prefect.states import Crashed, Pending, Running

    with team.client() as client:
        flow = client.read_flow_by_name("generate")
        # Of no work pool: no worker takes it.
        run = client.create_flow_run_from_deployment(client.create_deployment(flow.id, "of-no-pool"))
        for _ in range(3):
            client.set_flow_run_state(run.id, Pending(), force=True)
            client.set_flow_run_state(run.id, Running(), force=True)
        client.set_flow_run_state(run.id, Crashed(), force=True)

    def failed() -> Any:
        with team.client() as client:
            state = client.read_flow_run(run.id).state
        return state if state.is_failed() else None

    state = wait_for(failed, 60, team.folder / "server.log")
    with team.client() as client:
        client.delete_deployment(run.deployment_id)
    assert state.message.startswith("Given up after three attempts")
    assert "\n" not in state.message


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_run_whose_process_is_killed_is_tried_three_times(team: Team) -> None:
    asked = team.prefect(
        *("deployment", "run", "generate/on-demand", *CARTPOLE, "--param", "exp=deadly", "--param", "num_episodes=9000")
    )
    assert asked.returncode == 0
    log, made = team.folder / "worker.log", 0
    for _ in range(3):
        wait_for(lambda: team.episodes("deadly") > made, 200, log)  # noqa: B023 (called at once)
        (engine,) = [pid for pid in descendants(team.processes[-1].pid) if "prefect.engine" in command_of(pid)]
        os.kill(engine, signal.SIGKILL)
        # Its worker processes end with it.
        time.sleep(5)
        made = team.episodes("deadly")

    def over() -> list[Any]:
        return [run for run in team.flow_runs() if "exp:deadly" in run.tags and run.state.is_failed()]

    (run,) = wait_for(over, 60, log)
    assert run.run_count == 3
    assert run.state.message.startswith("Given up after three attempts")


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_worker_killed_amid_a_run_and_started_again_finishes_it(team: Team) -> None:
    ask_for_no_agent(team, "over")
    worker = team.processes[-1]
    asked = team.prefect(
        *("deployment", "run", "generate/on-demand", *CARTPOLE, "--param", "exp=killed", "--param", "num_episodes=2000")
    )
    assert asked.returncode == 0
    log = team.folder / "worker.log"
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    # The first sign of life has been heard by then.
    wait_for(lambda: team.episodes("killed") > 30, 200, log)
    time.sleep(35)
    kill_tree(worker)
    made = team.episodes("killed")
    assert made < 2000, "the run was over before it could be killed"
    team.start("worker")
    wait_for(lambda: team.episodes("killed") == 2000, 600, log)

    def completed() -> list[Any]:
        return [run for run in team.flow_runs() if "exp:killed" in run.tags and run.state.is_completed()]

    (run,) = wait_for(completed, 60, log)
    assert run.run_count == 2
    assert "already there" in run.state.message
    own = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))

    def states() -> set[str]:
        tasks: list[Any] = []
        with team.client() as client:
            while page := client.read_task_runs(flow_run_filter=own, offset=len(tasks)):
                tasks += page
        return {task.state.name for task in tasks}

    # None stays "Running" (the server records states a little later); complete shards may be hits in the cache.
    wait_for(lambda: states() <= {"Completed", "Crashed", "Cached"}, 30, log)
    assert {"Completed", "Crashed"} <= states()
    # What is over is not taken for lost.
    assert [run.run_count for run in refused(team, "over")] == [1]


@pytest.mark.soak
def test_a_schedule_fires(team: Team) -> None:
    (documented,) = [words for words in PREFECT if words[:3] == ["deployment", "schedule", "create"]]
    assert team.prefect(*documented).returncode == 0
    soon = (datetime.now(UTC) + timedelta(seconds=5)).isoformat()
    # Every 20 seconds from then: on a busy machine the command itself may take longer than 5.
    made = team.prefect(
        *("deployment", "schedule", "create", "generate/nightly", "--interval", "20", "--anchor-date", soon)
    )
    assert made.returncode == 0, made.stdout + made.stderr

    def finished() -> list[Any]:
        runs = [run for run in team.flow_runs() if {"nightly", "auto-scheduled"} <= set(run.tags)]
        return [run for run in runs if run.state.is_completed()]

    runs = wait_for(finished, 200, team.folder / "worker.log")
    assert "episodes made" in runs[0].state.message
    assert team.episodes("CartPole-v1_random_experiment") == 10
    with team.client() as client:
        schedules = client.read_deployment_by_name("generate/nightly").schedules
    assert "0 4 * * *" in {getattr(schedule.schedule, "cron", None) for schedule in schedules}
