import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import rlhfblender_core
from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.runs.folders import is_alive, machine_folder, open_run, open_scratch, remove_dead_runs
from rlhfblender_core.storage import open_data_root

YOUNG, OLD, OTHERS = f".new-{1:020d}-1-00000000", f".new-{0:020d}-1-00000000", f"{0:020d}-1-00000000"


def test_a_run_has_a_folder_of_its_own_which_is_gone_afterwards(tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path))
    with open_run(root) as first, open_run(root) as second:
        one, two = first.folder, second.folder
        (one / "unfinished").write_text("x")
        assert one != two
        assert is_alive(one)
        assert is_alive(two)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_run_that_was_killed_is_removed_by_the_next_one(tmp_path: Path) -> None:
    script = (
        "import sys, time; from rlhfblender_core.runs.folders import open_run; "
        "from rlhfblender_core.storage import open_data_root\n"
        "with open_run(open_data_root(sys.argv[1])) as run:\n"
        "    (run.folder / 'unfinished').write_text('x'); print(run.folder, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        with open_run(open_data_root(str(tmp_path))):
            assert (folder / "unfinished").exists()  # it still lives
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with open_run(open_data_root(str(tmp_path))) as own:
        assert list((tmp_path / RUNS).iterdir()) == [own.folder]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_never_got_its_name_is_removed_once_it_is_old(tmp_path: Path) -> None:
    for name, age in ((YOUNG, 10), (OLD, 7200)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    remove_dead_runs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [YOUNG]


def test_a_folder_whose_run_died_before_it_had_its_name_is_removed_in_seconds(tmp_path: Path) -> None:
    for name, age in ((YOUNG, 1), (OLD, 30)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    remove_dead_runs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [YOUNG]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_run_of_another_user_is_left_alone(mode: int) -> None:
    with tempfile.TemporaryDirectory() as shared:  # pytest's own folders are closed to others
        others = Path(shared) / RUNS / OTHERS
        others.mkdir(parents=True)
        (others / "lock").touch()
        for folder in (Path(shared), others.parent):
            folder.chmod(0o777)
        others.chmod(mode)
        os.seteuid(65534)
        try:
            with open_run(open_data_root(shared)):
                assert is_alive(others)
        finally:
            os.seteuid(0)
        assert (others / "lock").exists()


def test_what_a_killed_process_kept_in_the_temporary_folder_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    script = (
        "import os; from rlhfblender_core.runs.folders import open_scratch\n"
        "with open_scratch() as folder:\n"
        "    (folder / 'progress').touch(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    (left,) = machine_folder().iterdir()
    assert (left / "progress").exists()
    with open_scratch() as own:
        assert list(own.parent.iterdir()) == [own]
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_that_had_workers_leaves_nothing_that_the_next_one_doesnt_remove() -> None:
    script = (
        "import os; from rlhfblender_core.workers.processes import start_fork_server\n"
        "start_fork_server(trained=False); os.kill(os.getpid(), 9)"
    )
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        variables = {**os.environ, "TMPDIR": folder}
        killed = subprocess.run([sys.executable, "-c", script], env=variables, check=False)
        assert killed.returncode == -signal.SIGKILL
        next_one = "from rlhfblender_core.runs.folders import open_scratch\nwith open_scratch(): pass"
        subprocess.run([sys.executable, "-c", next_one], env=variables, check=True)
        assert list(Path(folder).iterdir()) == []


def test_many_runs_come_and_go_side_by_side(tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path))
    errors: list[BaseException] = []

    def come_and_go() -> None:
        try:
            for _ in range(40):
                with open_run(root) as run:
                    (run.folder / "unfinished").write_text("x")
        except BaseException as error:  # noqa: BLE001 (shown below)
            errors.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(tmp_path.iterdir()) == []


def test_what_no_run_has_made_is_not_removed_behind_a_link(tmp_path: Path) -> None:
    """A data root from somebody else may call any folder its folder of runs."""
    home, root = tmp_path / "home", tmp_path / "data"
    (home / "work").mkdir(parents=True)
    (home / OTHERS).mkdir()  # the control: what a dead run has left goes
    root.mkdir()
    (root / RUNS).symlink_to(home)
    with open_run(open_data_root(str(root))):
        assert list(home.glob("work")) == [home / "work"]
    assert list(home.iterdir()) == [home / "work"]


def test_what_a_killed_run_left_on_the_machine_goes_with_the_next_though_that_finds_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "machine"))
    asked = {"env": "CartPole-v1", "random": True, "num_episodes": 1, "no_render": True, "workers": 0}
    rlhfblender_core.generate(**asked, data_root=str(tmp_path / "data"))
    left = machine_folder() / OTHERS
    left.mkdir(parents=True)
    (left / "lock").touch()
    report = rlhfblender_core.generate(**asked, data_root=str(tmp_path / "data")).report
    assert report is not None
    assert report.made == 0
    assert not left.exists()
