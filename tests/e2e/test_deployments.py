"""Server, deployments and worker as a team runs them: started by make, asked by Prefect's command line."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
CARTPOLE = ("--param", "env=CartPole-v1", "--param", "random=true")

pytestmark = [
    pytest.mark.xdist_group("deployments"),
    pytest.mark.timeout(600),  # a server, a worker and a command line: minutes on a machine that is busy
    pytest.mark.skipif(shutil.which("make") is None, reason="there is no make"),
]


@dataclass
class Team:
    """A Prefect server of its own with workers, and the commands to use them."""

    folder: Path
    port: int
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "RLHFBLENDER_DATA_ROOT": str(self.data),
        }

    def make(self, target: str) -> list[str]:
        return ["make", "--directory", str(REPOSITORY), f"VENV={self.folder / 'venv'}", f"PORT={self.port}", target]

    def start(self, target: str) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{target}.log").open("ab") as log:
            process = subprocess.Popen(
                self.make(target),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=280, check=False
        )

    def prefect(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.run(sys.executable, "-m", "prefect", "--no-prompt", *arguments)

    def episodes(self, experiment: str) -> int:
        return len(list(self.data.glob(f"manifests/{experiment}/*/*.json")))

    def flow_runs(self) -> list[Any]:
        from prefect import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with (
            temporary_settings({PREFECT_API_URL: self.environment["PREFECT_API_URL"]}),
            get_client(sync_client=True) as client,
        ):
            return list(client.read_flow_runs())

    def task_runs(self, run: Any) -> list[Any]:
        from prefect import get_client
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with (
            temporary_settings({PREFECT_API_URL: self.environment["PREFECT_API_URL"]}),
            get_client(sync_client=True) as client,
        ):
            return list(client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))))

    def stop(self) -> None:
        for process in self.processes:
            kill_tree(process)


def descendants(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in found.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    queue, reached = [pid], []
    while queue:
        reached.append(queue.pop())
        queue += children.get(reached[-1], [])
    return reached


def kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """What a power cut does to all that came of it."""
    for pid in descendants(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def wait_for(condition: Callable[[], Any], seconds: float, log: Path) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.5)
    raise AssertionError(f"nothing after {seconds:g} s; {log.name} ends with: {log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    # make's virtual environment is the one that these tests run in.
    (folder / "venv").mkdir()
    (folder / "venv" / "bin").symlink_to(Path(sys.prefix) / "bin")
    (folder / "venv" / ".installed").touch()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    team = Team(folder, port)
    with ExitStack() as stack:
        stack.callback(team.stop)
        team.start("server")
        wait_for(lambda: is_healthy(port), 120, folder / "server.log")
        deployed = team.run(*team.make("deploy"))
        assert deployed.returncode == 0, deployed.stdout + deployed.stderr
        team.start("worker")
        yield team


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
            return True
    except OSError:
        return False


def test_a_deployment_started_from_the_command_line_makes_data(team: Team) -> None:
    asked = team.prefect("deployment", "run", "generate/on-demand", *CARTPOLE, "--param", "num_episodes=3", "--watch")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert team.episodes("CartPole-v1_random_experiment") == 3
    (run,) = [run for run in team.flow_runs() if run.name == "generate CartPole-v1 random"]
    assert run.state.message == f"3 episodes made, 0 already there, in {team.data}"
    tags = {"env:CartPole-v1", "exp:CartPole-v1_random_experiment", "project:RLHF-Blender", "generate"}
    assert set(run.tags) == tags


def test_a_wrong_parameter_is_refused_before_there_is_a_run(team: Team) -> None:
    before = len(team.flow_runs())
    asked = team.prefect("deployment", "run", "generate/on-demand", *CARTPOLE, "--param", "num_episodes=0")
    assert asked.returncode == 1
    assert "0 is less than the minimum of 1" in " ".join((asked.stdout + asked.stderr).split())
    assert len(team.flow_runs()) == before


def test_a_run_whose_request_is_wrong_says_so_in_one_line(team: Team) -> None:
    asked = team.prefect("deployment", "run", "generate/on-demand", "--param", "env=CartPole-v1", "--watch")
    assert asked.returncode == 1
    (run,) = [run for run in team.flow_runs() if run.state.name == "Refused"]
    assert run.state.message.startswith("Give --random for a random agent, or --model-path")
    assert "\n" not in run.state.message


def test_deploying_again_changes_nothing_that_people_changed(team: Team) -> None:
    assert team.prefect("gcl", "update", "rendering", "--limit", "1").returncode == 0
    deployed = team.run(*team.make("deploy"))
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert "limit=1" in "".join(team.prefect("gcl", "inspect", "rendering").stdout.split())
    listed = team.prefect("automation", "ls").stdout
    assert listed.count("finish-lost-runs") == 1


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_worker_killed_amid_a_run_and_started_again_finishes_it(team: Team) -> None:
    worker = team.processes[-1]
    asked = team.prefect(
        *("deployment", "run", "generate/on-demand", *CARTPOLE, "--param", "exp=killed", "--param", "num_episodes=900")
    )
    assert asked.returncode == 0
    log = team.folder / "worker.log"
    # The first sign of life has been heard by then.
    wait_for(lambda: team.episodes("killed") > 30, 200, log)
    time.sleep(35)
    kill_tree(worker)
    made = team.episodes("killed")
    assert made < 900, "the run was over before it could be killed"
    team.start("worker")
    wait_for(lambda: team.episodes("killed") == 900, 600, log)

    def completed() -> list[Any]:
        return [run for run in team.flow_runs() if "exp:killed" in run.tags and run.state.is_completed()]

    (run,) = wait_for(completed, 60, log)
    assert run.run_count == 2
    assert "already there" in run.state.message
    assert {task.state.name for task in team.task_runs(run)} == {"Completed", "Crashed"}
    # What is over is not taken for lost.
    assert [run.run_count for run in team.flow_runs() if run.state.name == "Refused"] == [1]


def test_a_schedule_fires(team: Team) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=12)).isoformat()
    # Every 30 seconds from then: on a busy machine the command itself may take longer than 12.
    made = team.prefect(
        *("deployment", "schedule", "create", "generate/nightly", "--interval", "30", "--anchor-date", soon)
    )
    assert made.returncode == 0, made.stdout + made.stderr

    def finished() -> list[Any]:
        runs = [run for run in team.flow_runs() if {"nightly", "auto-scheduled"} <= set(run.tags)]
        return [run for run in runs if run.state.is_completed()]

    runs = wait_for(finished, 200, team.folder / "worker.log")
    assert "episodes made" in runs[0].state.message
    assert team.episodes("CartPole-v1_random_experiment") == 10
