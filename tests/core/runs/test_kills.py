"""Runs killed at random moments, finished by the same command: the same bytes, nothing left over, verify is clean.

The driver is the generate flow without Prefect; see ``tests/e2e`` for the command itself.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.delete import delete_all
from rlhfblender_core.errors import RLHFBlenderError
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support import generating
from tests.support.claiming import claim_and_die, under_way
from tests.support.generating import locations_of
from tests.support.soak import sampled
from tests.support.verifying import problems, repair

psutil = pytest.importorskip("psutil")

Snapshot = Callable[[Path], dict[str, str]]
EPISODES, LENGTH = 10, 60


def database(root: DataRoot) -> str:
    return f"sqlite:///{root.local_folder / 'rlhfblender.db'}"


def command(root: DataRoot, workers: int) -> list[str]:
    options = ["--episodes", str(EPISODES), "--length", str(LENGTH), "--workers", str(workers)]
    return [sys.executable, str(Path(generating.__file__)), str(root.local_folder), database(root), *options]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = open_data_root(str(tmp_path_factory.mktemp("undisturbed") / "data"))
    subprocess.run(command(root, 0), check=True, capture_output=True)
    return root.local_folder


@contextlib.contextmanager
def started(root: DataRoot, workers: int) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        command(root, workers), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # "ready"
        yield process


def victims(process: "subprocess.Popen[str]", who: str) -> list[int]:
    """Processes of the run: itself, its workers, or its encoders."""
    if who == "main":
        return [process.pid]
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        names = {child.pid: "encoder" if "ffmpeg" in child.name() else "worker" for child in children}
        return [pid for pid, name in names.items() if name == who]
    return []


def kill_once(root: DataRoot, who: str, chance: random.Random) -> None:
    """Starts a run and kills a part of it at some moment; the rest may end as it likes."""
    workers = 0 if who == "encoder" and chance.random() < 0.5 else 2
    with started(root, workers) as process:
        deadline = time.monotonic() + chance.uniform(0.0, 6.0)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        while process.poll() is None:
            found = victims(process, who)
            if found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(found), signal.SIGKILL)
                break
            time.sleep(0.005)
        process.communicate(timeout=120)


def check(root: DataRoot, undisturbed: Path, snapshot: Snapshot) -> None:
    finished = subprocess.run(command(root, 2), capture_output=True, text=True, check=False, timeout=200)
    assert finished.returncode == 0, finished.stderr
    assert snapshot(root.local_folder) == snapshot(undisturbed)
    assert not (root.local_folder / RUNS).exists()
    assert problems(root, database(root)) == []


@pytest.mark.parametrize("who", sampled(["main", "worker", "encoder"], "worker"))
def test_a_killed_run_is_finished_by_the_same_command(
    who: str, tmp_path: Path, undisturbed: Path, snapshot: Snapshot
) -> None:
    root = open_data_root(str(tmp_path / "data"))
    kill_once(root, who, random.Random(who))
    check(root, undisturbed, snapshot)


def kill_while_two_overlap(root: DataRoot, chance: random.Random) -> None:
    """Kills one of two runs, or both; meanwhile somebody verifies or deletes."""
    with started(root, chance.choice([0, 2])) as one, started(root, 0) as two:
        both = [one, two]
        time.sleep(chance.uniform(0.0, 3.0))
        with contextlib.suppress(RLHFBlenderError):
            problems(root, database(root)) if chance.random() < 0.5 else delete(root)
        time.sleep(chance.uniform(0.0, 1.0))
        for process in chance.sample(both, chance.choice([1, 1, 2])):
            process.kill()
        for process in both:
            process.communicate(timeout=120)


def delete(root: DataRoot) -> None:
    """Deletes the experiment, as ``delete.py`` does; refused while a run is under way."""
    delete_all(generating.KEY.experiment, (), LocalRunner(), locations_of(root, database(root)))


@pytest.mark.soak
def test_two_runs_that_overlap_and_are_killed_are_finished_by_the_same_command(
    tmp_path: Path, undisturbed: Path, snapshot: Snapshot
) -> None:
    root = open_data_root(str(tmp_path / "data"))
    kill_while_two_overlap(root, random.Random(7))
    check(root, undisturbed, snapshot)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_fifty_kills_of_runs_that_overlap(tmp_path: Path, undisturbed: Path, snapshot: Snapshot) -> None:
    chance = random.Random("overlap")
    for number in range(50):
        root = open_data_root(str(tmp_path / f"data-{number}"))
        kill_while_two_overlap(root, chance)
        check(root, undisturbed, snapshot)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("who", ["main", "worker", "encoder"])
def test_seventeen_kills_in_random_moments(who: str, tmp_path: Path, undisturbed: Path, snapshot: Snapshot) -> None:
    chance = random.Random(f"soak {who}")
    for number in range(17):
        root = open_data_root(str(tmp_path / f"data-{number}"))
        for _ in range(chance.choice([1, 1, 2])):
            kill_once(root, who, chance)
        check(root, undisturbed, snapshot)


@pytest.mark.soak
def test_what_a_killed_run_had_moved_without_manifest_is_removed_unless_a_live_run_may_own_it(
    tmp_path: Path, undisturbed: Path, snapshot: Snapshot
) -> None:
    root = open_data_root(str(tmp_path / "data"))
    subprocess.run(command(root, 0), check=True, capture_output=True)
    claim_and_die(root, database(root), generating.KEY, [77])
    (root.local_folder / "renders/E/random/77.mp4").write_bytes(b"left over")
    with under_way(root, database(root), "E"):
        assert repair(root, database(root)) == []
        assert (root.local_folder / "renders/E/random/77.mp4").exists()
    assert repair(root, database(root)) == []
    assert snapshot(root.local_folder) == snapshot(undisturbed)


def test_what_nobody_is_known_to_have_made_is_never_removed(tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path / "data"))
    subprocess.run(command(root, 0), check=True, capture_output=True)
    (root.local_folder / "renders/E/random/77.mp4").write_bytes(b"somebody's")
    subprocess.run(command(root, 0), check=True, capture_output=True)
    repair(root, database(root))
    assert (root.local_folder / "renders/E/random/77.mp4").read_bytes() == b"somebody's"
    (line,) = problems(root, database(root))
    assert "import_data.py --exp E" in line
