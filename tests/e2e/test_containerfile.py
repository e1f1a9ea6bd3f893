"""deployments/Containerfile: what its image does, without a screen."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.container_steps import children
from tests.support.containers import REPOSITORY, needs_containers

pytestmark = needs_containers


def finished(container: "subprocess.Popen[str]") -> str:
    output, _ = container.communicate(timeout=280)
    assert container.returncode == 0, output
    return output


def test_without_arguments_it_says_what_it_can_do(image: Any) -> None:
    assert "--num-episodes" in finished(image.start())


@pytest.mark.parametrize("user", ["worker", "4242:4242"])
def test_it_generates_as_a_user_without_rights(image: Any, volume: Path, user: str) -> None:
    if user != "worker":
        shutil.chown(volume, 4242, 4242)
    flags = ("--env", "CartPole-v1", "--random", "--num-episodes", "2")
    output = finished(image.start(*flags, mounts={volume: "/data"}, user=user))
    assert "random" in output
    files = [path for path in volume.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".mp4"]) == 2
    assert {path.stat().st_uid for path in files} == {1000 if user == "worker" else 4242}


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_mujoco_renders_without_a_screen(image: Any, volume: Path, backend: str) -> None:
    flags = ("--env", "InvertedPendulum-v5", "--random", "--num-episodes", "1", "--max-steps-per-episode", "5")
    output = finished(image.start(*flags, mounts={volume: "/data"}, environment={"MUJOCO_GL": backend}))
    assert "warning" not in output  # a black or constant video would be one
    assert len(list(volume.rglob("*.mp4"))) == 1


def test_a_worker_takes_runs_and_says_whether_it_is_healthy(image: Any, volume: Path, prefect_server: str) -> None:
    environment = {**os.environ, "PREFECT_API_URL": prefect_server}
    deploy = "-m prefect --no-prompt deploy --prefect-file deployments/prefect.yaml --name on-demand"
    ask = "-m prefect --no-prompt deployment run generate/on-demand --param env=CartPole-v1 --param random=true"
    for command in (["deployments/set_up.py"], deploy.split(), [*ask.split(), "--param", "exp=in-a-container"]):
        done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, env=environment, check=False)
        assert done.returncode == 0
    variables = {"PREFECT_API_URL": prefect_server, "PREFECT_WORKER_WEBSERVER_PORT": str(free_port())}
    worker = ("worker", "--pool", "local-processes")
    container = image.start(*worker, mounts={volume: "/data"}, environment=variables)
    try:
        wait_for(lambda: len(list(volume.glob("manifests/in-a-container/random/*.json"))) == 10)
        assert image.check_health(container, variables) == 0
        (prefect,) = children(image.first_process(container))
        os.kill(prefect, signal.SIGSTOP)
        assert image.check_health(container, variables) != 0
        os.kill(prefect, signal.SIGCONT)
    finally:
        os.kill(image.first_process(container), signal.SIGTERM)
        output, _ = container.communicate(timeout=60)
    assert "Traceback" not in output


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)
