"""What can only be seen from outside: output, exit codes, signals, processes that are left, memory."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.rollout.seeding import episode_seed
from tests.support.terminal import complaints

Command = Any
Snapshot = Callable[[Path], dict[str, str]]
EVENTS = "ENVIRONMENTS_FOR_TESTS_EVENTS"
COUNTING = (
    "--env",
    "Mine-v0",
    "--env-gym-entrypoint",
    "tests.support.environments_for_tests.counting:Counting",
    "--random",
)
IN_PROCESS = ("--runner", "inprocess")
PROCESSES = ("--runner", "process", "--workers", 2)

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def processes_of(session: int) -> Iterator[int]:
    """Processes in the session that the command was started in, but for dead ones nobody has asked about."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            yield int(entry.name)


def servers_with(mark: str) -> list[str]:
    """Temporary servers that inherited the mark; they have sessions of their own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if b"temporary_server" in words and mark.encode() in variables:
            found.append(entry.name)
    return found


def ffmpegs_below(folder: Path) -> list[str]:
    """Encoders that still write there; they have sessions of their own."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(folder).encode() in words and b"ffmpeg" in words:
            found.append(entry.name)
    return found


def test_a_machine_without_server_or_torch_makes_random_episodes_and_says_only_what_it_should(
    alone: Command, data_root: Path, no_torch: Callable[[], dict[str, str]]
) -> None:
    flags = ("--env", "CartPole-v1", "--random", "--num-episodes", 4, "--data-root", data_root, *PROCESSES)
    result = alone(*flags, **no_torch())
    assert (result.returncode, complaints(result.stderr)) == (0, [])
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["checkpoint", "made", "already", "there", "failed", "return", "length"]
    assert lines[1].split()[:4] == ["random", "4", "0", "0"]
    assert [line.split(":")[0] for line in lines[2:]] == ["Data", "Watch", "Load", "Look", "Run"]
    assert "`make server`" in lines[-1]
    assert len(list((data_root / "renders").rglob("*.mp4"))) == 4


def test_a_wrong_request_is_refused_before_anything_is_started(alone: Command, data_root: Path, tmp_path: Path) -> None:
    for wrong in (("--env", "CartPol-v1", "--random"), (*COUNTING, "--num-episodes", 0), (*COUNTING, "--nonsense")):
        result = alone(*wrong, "--data-root", data_root)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert result.stderr.startswith("error: ")
    assert not data_root.exists()
    assert list(alone.folder.iterdir()) == []


def test_the_default_data_root_is_the_folder_data_here(command: Command) -> None:
    result = command(*COUNTING, "--exp", "e", "--num-episodes", 1, "--runner", "inprocess")
    assert (result.returncode, complaints(result.stderr)) == (0, [])
    assert re.search(r"^Run: http://127\.0\.0\.1:\d+/runs/flow-run/[0-9a-f-]{36}$", result.stdout, re.MULTILINE)
    assert [path.name for path in command.folder.iterdir()] == ["data"]
    assert (command.folder / "data" / "manifests" / "e" / "random" / "0.json").exists()


@needs_proc
@pytest.mark.parametrize(
    ("runner", "number", "hangs"),
    [
        (PROCESSES, signal.SIGTERM, False),
        pytest.param(IN_PROCESS, signal.SIGTERM, False, marks=pytest.mark.soak),
        pytest.param(PROCESSES, signal.SIGINT, True, marks=pytest.mark.soak),
        # A thread that hangs in the environment can't be stopped: the process is ended after a while.
        pytest.param(IN_PROCESS, signal.SIGTERM, True, marks=pytest.mark.soak),
        pytest.param(IN_PROCESS, signal.SIGINT, True, marks=pytest.mark.soak),
        pytest.param(IN_PROCESS, signal.SIGINT, False, marks=pytest.mark.soak),
        pytest.param(PROCESSES, signal.SIGTERM, True, marks=pytest.mark.soak),
        pytest.param(PROCESSES, signal.SIGHUP, True, marks=pytest.mark.soak),
    ],
)
def test_one_signal_ends_the_command_in_seconds_with_one_line(
    runner: tuple[object, ...],
    number: signal.Signals,
    hangs: bool,
    command: Command,
    data_root: Path,
    tmp_path: Path,
) -> None:
    marker = tmp_path / "hanging"
    flags = (*COUNTING, "--num-episodes", 6, "--data-root", data_root, *runner)
    hang = {EVENTS: f"hang@{episode_seed(0, 3)}:2:{marker}"} if hangs else {}
    if not hangs:
        flags = (*flags, "--env-kwargs", "length:3000")
    with command.start(*flags, **hang) as process:
        wait_for(lambda: marker.exists() or (not hangs and any((data_root / ".runs").rglob("renders.mp4"))))
        started = time.monotonic()
        if number == signal.SIGTERM and hangs:
            process.terminate()
        else:
            os.killpg(process.pid, number)  # as a terminal and timeout do: to every process of the group
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert time.monotonic() - started < 15
    assert process.returncode == 128 + number
    assert [line[:14] for line in complaints(err)] == ["error: Stopped"], err
    assert "Traceback" not in out
    wait_for(lambda: not list(processes_of(process.pid)), 10)
    if not hangs or runner is PROCESSES:
        assert not (data_root / ".runs").exists()


@needs_proc
def test_a_kill_leaves_no_temporary_server_behind(alone: Command, data_root: Path, tmp_path: Path) -> None:
    mark = f"KILLED_RUN={tmp_path}"
    with alone.start(*COUNTING, "--num-episodes", 2, "--data-root", data_root, KILLED_RUN=str(tmp_path)) as process:
        wait_for(lambda: bool(servers_with(mark)))
        process.kill()
        process.communicate(timeout=60)
    wait_for(lambda: not servers_with(mark), 10)


@needs_proc
def test_after_a_kill_no_process_is_left_and_the_same_command_finishes(
    command: Command, data_root: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    marker = tmp_path / "hanging"
    flags = (*COUNTING, "--exp", "study", "--num-episodes", 6, *PROCESSES)
    hang = {EVENTS: f"hang@{episode_seed(0, 3)}:2:{marker}"}
    with command.start(*flags, "--data-root", data_root, **hang) as process:
        wait_for(marker.exists)
        process.kill()
        process.communicate(timeout=60)
    wait_for(lambda: not list(processes_of(process.pid)) and not ffmpegs_below(data_root), 20)
    assert (data_root / ".runs").exists()
    result = command(*flags, "--data-root", data_root)
    assert (result.returncode, complaints(result.stderr)) == (0, [])
    whole = command(*flags, "--data-root", tmp_path / "whole", "--runner", "inprocess")
    assert whole.returncode == 0
    assert snapshot(data_root) == snapshot(tmp_path / "whole")


def peak_memory(process: "subprocess.Popen[str]") -> int:
    """Largest sum of the memory of the command and its workers, in bytes, until it ends.

    Without mapped files: a process's share in those depends on what else runs on the machine. What is seen once only is
    a process that is being started: until it is another program, it has its parent's memory, which counts twice.
    """
    peak = before = 0

    def look() -> None:
        nonlocal peak, before
        while process.poll() is None:
            total = 0
            for pid in processes_of(process.pid):
                try:
                    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                except OSError:
                    continue
                total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss_Anon:"))
            peak = max(peak, min(before, total) * 1024)
            before = total
            time.sleep(0.05)

    watcher = threading.Thread(target=look)
    watcher.start()
    out, err = process.communicate(timeout=3600)
    watcher.join()
    assert (process.returncode, complaints(err)) == (0, []), out
    return peak


@needs_proc
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("few", "many", "length"), [(10, 40, 100), (10, 200, 500)])
def test_memory_does_not_grow_with_the_number_of_episodes(
    few: int, many: int, length: int, command: Command, tmp_path: Path
) -> None:
    flags = (*COUNTING, "--env-kwargs", f"length:{length}", "height:200", "width:300", *PROCESSES)
    peaks = [
        peak_memory(command.start(*flags, "--num-episodes", count, "--data-root", tmp_path / str(count)))
        for count in (few, many)
    ]
    assert peaks[1] < peaks[0] * 1.1, peaks
