"""A team's Prefect: server, deployments and worker, started by make, on a port and in a folder of their own."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]


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
            # Tests wait for these two.
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
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

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Prefect's, for this server."""
        from prefect import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with (
            temporary_settings({PREFECT_API_URL: self.environment["PREFECT_API_URL"]}),
            get_client(sync_client=True) as client,
        ):
            yield client

    def flow_runs(self) -> list[Any]:
        with self.client() as client:
            return list(client.read_flow_runs())

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


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    # make's virtual environment is the one that these tests run in.
    (folder / "venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (folder / "venv" / part).symlink_to(Path(sys.prefix) / part)
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
