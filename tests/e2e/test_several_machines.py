"""A cluster of several machines that share nothing but the network: one is cut off in the middle of a run."""

import contextlib
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.machines import HEAD, Machine, forwarder, machines

Command = Any
Snapshot = Callable[[Path], dict[str, str]]
REPOSITORY = Path(__file__).parents[2]
EPISODES = 24
JOB = (
    *("--env", "D-v0", "--env-gym-entrypoint", "tests.support.environments_for_tests.counting:Drawing", "--random"),
    *("--env-kwargs", "length:120", "--num-episodes", EPISODES),
)
BUCKET = "s3://team"
_SNAPSHOT = """
import fsspec, hashlib, json, sys
storage, root = fsspec.filesystem("s3"), sys.argv[1]
paths = {path.partition("/data/")[2]: path for path in storage.find(root)}
print(json.dumps({name: hashlib.sha256(storage.cat_file(path)).hexdigest() for name, path in paths.items()}))
"""
_MOTO = "import sys; from moto.server import main; main(sys.argv[1:])"
#: Of a command that writes an episode's last file, in the log of moto.
_PUBLISHED = re.compile(r'"PUT /(team/\S+/manifests/\S+\.json)[? ]')


@pytest.fixture
def cluster(tmp_path: Path, new_postgres_url: str) -> Iterator[list[Machine]]:
    """Four machines: on the first S3, PostgreSQL, Prefect's server and Dask's scheduler; the others are for workers."""
    pytest.importorskip("prefect_dask")
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RLHFBLENDER_"))}
    variables = {
        **kept,
        "AWS_ENDPOINT_URL": f"http://{HEAD}:5000",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s",  # until a silent machine is given up
        "HOME": str(tmp_path),
        "PREFECT_API_URL": f"http://{HEAD}:4200/api",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PYTHONPATH": str(REPOSITORY),
    }
    url = sa.make_url(new_postgres_url)
    services = {
        "s3": ("-c", _MOTO, "-H", HEAD, "-p", 5000),
        "postgres": forwarder(5432, Path(str(url.query["host"])) / ".s.PGSQL.5432"),
        "prefect": ("-m", "prefect", "server", "start", "--host", HEAD, "--port", 4200),
        "scheduler": ("-m", "distributed.cli.dask_scheduler", "--host", f"tcp://{HEAD}:8786", "--no-dashboard"),
    }
    variables["RLHFBLENDER_DATABASE_URL"] = f"postgresql+psycopg://{url.username}@{HEAD}:5432/{url.database}"
    with machines(4, variables) as made, contextlib.ExitStack() as stack:
        for name, command in services.items():
            stack.enter_context(made[0].running(tmp_path / f"{name}.log", *command))
        made[0].wait_for(f"http://{HEAD}:5000")
        made[0].wait_for(f"http://{HEAD}:4200/api/health")
        made[0].output("-c", f"import fsspec; fsspec.filesystem('s3').mkdir({BUCKET!r})")
        yield made


def start_worker(machine: Machine, folder: Path) -> contextlib.AbstractContextManager[Any]:
    place = folder / machine.name
    place.mkdir()
    flags = ("--no-nanny", "--nthreads", 1, "--no-dashboard", "--host", machine.address, "--local-directory", place)
    scheduler = f"tcp://{HEAD}:8786"
    return machine.running(folder / f"{machine.name}.log", "-m", "distributed.cli.dask_worker", scheduler, *flags)


def flags_of(name: str, workers: int) -> tuple[object, ...]:
    root = f"{BUCKET}/{name}/data"
    dask = ("--runner", "dask", "--dask-address", f"tcp://{HEAD}:8786", "--workers", workers)
    return (REPOSITORY / "flows/generate.py", *JOB, *dask, "--exp", "study", "--data-root", root)


def seconds(head: Machine, name: str, workers: int) -> float:
    started = time.monotonic()
    head.output(*flags_of(name, workers))
    return time.monotonic() - started


@pytest.mark.soak
def test_a_machine_that_is_cut_off_costs_nothing_but_time(
    cluster: list[Machine], tmp_path: Path, alone: Command, snapshot: Snapshot
) -> None:
    head, *others = cluster
    log = tmp_path / "s3.log"
    with contextlib.ExitStack() as workers:
        workers.enter_context(start_worker(others[0], tmp_path))
        one = seconds(head, "one", 1)
        for machine in others[1:]:
            workers.enter_context(start_worker(machine, tmp_path))
        three = seconds(head, "three", 3)
        with head.start(*flags_of("cut", 3)) as run:
            while "team/cut/" not in " ".join(_PUBLISHED.findall(log.read_text())) and run.poll() is None:
                time.sleep(0.05)
            others[0].cut_off()
            out, _ = run.communicate(timeout=300)
    print(f"1 machine {one:.1f} s, 3 machines {three:.1f} s, efficiency {one / three / 3:.2f}", file=sys.stderr)
    assert run.returncode == 0, out.decode()
    expected = alone(*JOB, "--exp", "study", "--runner", "inprocess", "--data-root", tmp_path / "alone")
    assert expected.returncode == 0, expected.stderr
    files = snapshot(tmp_path / "alone")
    assert len(files) == EPISODES * 6
    for name in ("one", "three", "cut"):
        assert json.loads(head.output("-c", _SNAPSHOT, f"{BUCKET}/{name}/data")) == files
    published = Counter(_PUBLISHED.findall(log.read_text()))
    assert sorted(Counter(published.values()).items()) == [(1, 3 * EPISODES)]
