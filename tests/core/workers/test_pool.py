import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from rlhfblender_core.errors import EpisodeError, EpisodesFailedError, RunStoppedError, WorkerLostError
from rlhfblender_core.workers.pool import Workers, available_cores
from rlhfblender_core.workers.progress import read_progress
from tests.support.environments_for_tests import work


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def size_of_session(leader: int) -> int:
    found = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += int(path.read_text().rpartition(")")[2].split()[3]) == leader
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells from /proc which processes run")


@pytest.mark.parametrize("processes", [0, 1])
def test_results_and_errors_come_back(processes: int, tmp_path: Path) -> None:
    with Workers(processes, tmp_path) as workers:
        assert workers.run(work.add, 2, two=3) == 5
        with pytest.raises(ValueError, match="no luck"):
            workers.run(work.fail, "no luck")
        pid, _ = workers.run(work.where)
        assert (pid == os.getpid()) == (processes == 0)
        workers.run(work.count, 7)
        workers.run(work.count, 5)
        assert read_progress(tmp_path) == (12, 2)


def test_in_this_process_one_thread_does_all_the_work(tmp_path: Path) -> None:
    with Workers(0, tmp_path) as workers, ThreadPoolExecutor(4) as callers:
        found = set(callers.map(lambda _: workers.run(work.where), range(20)))
    assert len(found) == 1
    assert found.pop()[1] != threading.get_ident()


def test_after_a_worker_was_killed_the_next_call_starts_new_ones(tmp_path: Path) -> None:
    with Workers(1, tmp_path) as workers:
        with pytest.raises(WorkerLostError, match="died"):
            workers.run(work.die_once, tmp_path / "marker")
        assert workers.run(work.die_once, tmp_path / "marker") == "done"


def test_a_worker_that_died_is_one_line_however_many_waited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked = threading.Barrier(6)

    def call(workers: Workers, number: int) -> str:
        asked.wait(60)
        try:
            return str(workers.run(work.hang, tmp_path / f"pid-{number}"))
        except WorkerLostError:
            return "lost"

    def a_pid() -> int:
        return next((int(text) for path in tmp_path.glob("pid-*") if (text := path.read_text())), 0)

    logger = logging.getLogger("rlhfblender_core.workers.pool")
    logger.addHandler(caplog.handler)
    try:
        with Workers(2, tmp_path) as workers, ThreadPoolExecutor(5) as callers:
            calls = [callers.submit(call, workers, number) for number in range(5)]
            asked.wait(60)
            wait_for(lambda: a_pid() > 0)
            time.sleep(1)  # until all five wait
            os.kill(a_pid(), signal.SIGKILL)
            assert [waiting.result(60) for waiting in calls] == ["lost"] * 5
    finally:
        logger.removeHandler(caplog.handler)
    assert len({id(record) for record in caplog.records}) == 1
    assert "A worker process died" in caplog.text


@needs_proc
def test_a_worker_that_is_started_while_another_dies_ends_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's pool doesn't know it yet when it ends its workers, and waits for it at the end of the process."""
    start, started = ForkServerProcess.start, []

    def start_slowly(process: ForkServerProcess) -> None:
        start(process)
        started.append(process.pid)
        if len(started) > 1:
            os.kill(started[0], signal.SIGKILL)
            time.sleep(1)

    monkeypatch.setattr(ForkServerProcess, "start", start_slowly)
    with Workers(2, tmp_path) as workers, ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(workers.run, work.hang, tmp_path / "pid")]
        wait_for((tmp_path / "pid").exists)
        calls.append(callers.submit(workers.run, work.hang, tmp_path / "other"))
        for call in calls:
            with pytest.raises(WorkerLostError):
                call.result(60)
        wait_for(lambda: not any(map(is_running, started)), 20)


@needs_proc
def test_closing_ends_workers_at_once_and_says_so_to_those_who_wait(tmp_path: Path) -> None:
    workers = Workers(1, tmp_path)
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(workers.run, work.hang, tmp_path / "pid")
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        started = time.monotonic()
        workers.close()
        with pytest.raises(RunStoppedError):
            waiting.result(20)
    assert time.monotonic() - started < 10
    assert not is_running(int((tmp_path / "pid").read_text()))
    with pytest.raises(RunStoppedError):
        workers.run(work.add, 1)


def test_closing_stops_the_thread_that_works_in_this_process_at_its_next_step(tmp_path: Path) -> None:
    workers = Workers(0, tmp_path)
    with ThreadPoolExecutor(1) as caller:
        waiting = caller.submit(workers.run, work.work_on, tmp_path / "works")
        wait_for((tmp_path / "works").exists)
        workers.close()
        with pytest.raises(RunStoppedError):
            waiting.result(20)


@needs_proc
def test_ctrl_c_while_workers_start_is_for_the_parent_alone(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.support.environments_for_tests import work\n"
        "from rlhfblender_core.workers.pool import Workers\n"
        "if __name__ == '__main__':\n"
        "    with Workers(1, Path(sys.argv[1])) as workers:\n"
        "        try: workers.run(work.hang, Path(sys.argv[1]) / 'pid')\n"
        "        except KeyboardInterrupt: pass\n"
    )
    (tmp_path / "main.py").write_text(script)
    tests = str(Path(work.__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": tests},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        wait_for(lambda: size_of_session(parent.pid) >= 3)  # with the one that tracks resources
        os.killpg(parent.pid, signal.SIGINT)
        try:
            _, err = parent.communicate(timeout=60)
        finally:
            parent.kill()
    assert err == ""


@needs_proc
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.support.environments_for_tests import work\n"
        "from rlhfblender_core.workers.pool import Workers\n"
        "if __name__ == '__main__': Workers(1, Path(sys.argv[1])).run(work.hang, Path(sys.argv[1]) / 'pid')\n"
    )
    (tmp_path / "main.py").write_text(script)
    tests = str(Path(work.__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py"), str(tmp_path)], env={**os.environ, "PYTHONPATH": tests}
    ) as parent:
        wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        worker = int((tmp_path / "pid").read_text())
        assert is_running(worker)
        parent.kill()
    wait_for(lambda: not is_running(worker), 10)


def test_workers_say_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Workers(1, tmp_path) as workers:
        workers.run(work.talk)
    assert capfd.readouterr() == ("", "")


def test_there_is_at_least_one_core() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    "error", [EpisodeError(3, 17, "ValueError: x"), EpisodesFailedError("random", {3: "episode 3 failed"})]
)
def test_errors_come_back_from_workers_whole(error: Exception) -> None:
    import pickle

    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_workers_have_the_environment_variables_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("first", "second"):
        monkeypatch.setenv("WORKERS_SEE", value)
        with Workers(1, tmp_path) as workers:
            assert workers.run(work.environment_variable, "WORKERS_SEE") == value
    monkeypatch.delenv("WORKERS_SEE")
    with Workers(1, tmp_path) as workers:
        assert workers.run(work.environment_variable, "WORKERS_SEE") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each worker loads by itself")
def test_workers_of_all_runs_hash_texts_alike(tmp_path: Path) -> None:
    """The order of sets of texts follows from it, and is part of what some environments do."""
    before = os.environ.get("PYTHONHASHSEED")
    with Workers(1, tmp_path) as workers:
        found = workers.run(hash, "a text")
    environment = {**os.environ, "PYTHONHASHSEED": "6640"}
    command = [sys.executable, "-S", "-c", "print(hash('a text'))"]
    other = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found == int(other.stdout)
    assert os.environ.get("PYTHONHASHSEED") == before


@pytest.mark.parametrize("trained", [False, True])
def test_workers_are_born_with_what_their_agents_need(trained: bool, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.support.environments_for_tests import work\n"
        "from rlhfblender_core.workers.processes import start_fork_server\n"
        "from rlhfblender_core.workers.pool import Workers\n"
        "if __name__ == '__main__':\n"
        f"    start_fork_server(trained={trained})\n"
        "    with Workers(1, Path(sys.argv[1])) as workers:\n"
        "        print(workers.run(work.loaded, 'gymnasium', 'torch', 'prefect'))\n"
        "    print(work.loaded('torch'))\n"
    )
    (tmp_path / "main.py").write_text(script)
    result = subprocess.run(
        [sys.executable, str(tmp_path / "main.py"), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(work.__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines() == [str(["gymnasium", "torch"] if trained else ["gymnasium"]), "[]"]
    assert result.stderr == ""


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import sys; from pathlib import Path; from tests.support.environments_for_tests import work\n"
        "from rlhfblender_core.workers.pool import Workers\n"
        "print('once', flush=True)\n"
        "with Workers(2, Path(sys.argv[1])) as workers:\n"
        "    print(workers.run(work.environment_variable, 'HOME') is not None)\n"
        "print(__file__ == sys.argv[0])\n"
    )
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout.split(), done.stderr) == (["once", "True", "True"], "")
