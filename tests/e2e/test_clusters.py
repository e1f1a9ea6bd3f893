"""Dask and Ray: the same bytes as from one process, also when a machine of the cluster dies."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import complaints

Command = Any
Snapshot = Callable[[Path], dict[str, str]]
DRAWING = ("--env", "D-v0", "--env-gym-entrypoint", "tests.support.environments_for_tests.counting:Drawing", "--random")
JOB = (*DRAWING, "--env-kwargs", "length:120", "--num-episodes", 16)
REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def dask_process(log: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A scheduler or a worker as started on a machine of its own; it knows nothing of the command or its settings."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RLHFBLENDER_"))}
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]],
            env={**variables, "PYTHONPATH": str(REPOSITORY), "PREFECT_HOME": str(log.with_suffix(".home"))},
            stdout=stream,
            stderr=stream,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_dask_cluster_that_loses_a_worker_makes_the_same_bytes(
    command: Command, data_root: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    pytest.importorskip("prefect_dask")
    address = f"tcp://127.0.0.1:{free_port()}"
    scheduler = ("dask_scheduler", "--host", address, "--no-dashboard")
    worker = ("dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
    with contextlib.ExitStack() as cluster:
        cluster.enter_context(dask_process(tmp_path / "scheduler.log", *scheduler))
        workers = [
            cluster.enter_context(
                dask_process(tmp_path / f"worker-{n}.log", *worker, "--local-directory", str(tmp_path))
            )
            for n in range(3)
        ]
        flags = ("--runner", "dask", "--dask-address", address, "--workers", 3, "--data-root", data_root)
        with command.start(*JOB, *flags) as run:
            wait_until(lambda: any(data_root.glob("manifests/*/*/*.json")) or run.poll() is not None)
            workers[0].kill()
            out, err = run.communicate(timeout=200)
    assert (run.returncode, complaints(err)) == (0, []), out
    assert "Traceback" not in out
    alone = command(*JOB, "--runner", "inprocess", "--data-root", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    found = snapshot(data_root)
    assert len(found) == 16 * 6
    assert found == snapshot(tmp_path / "alone")


@pytest.mark.soak
def test_ray_makes_the_same_bytes(alone: Command, data_root: Path, tmp_path: Path, snapshot: Snapshot) -> None:
    pytest.importorskip("prefect_ray", reason="pip install -e '.[ray]'")
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("Ray listens on all addresses; a network namespace of its own needs root on Linux")
    own_network = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable)
    for runner, root in (("inprocess", tmp_path / "alone"), ("ray", data_root)):
        flags = (*JOB, "--data-root", root, "--runner", runner, "--workers", 2)
        done = subprocess.run(
            [*own_network, *map(str, (REPOSITORY / "flows" / "generate.py", *flags))],
            cwd=alone.folder,
            env={**os.environ, **alone.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert snapshot(data_root) == snapshot(tmp_path / "alone")
