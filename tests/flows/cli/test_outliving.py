"""A command whose environment ends its process: one line with its name, an exit code, nothing by halves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
HOSTILE = ("--env", "Hostile-v0", "--env-gym-entrypoint", "tests.support.environments_for_tests.hostile:Hostile")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there a process outlives the command")


def run(file: str, *arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(REPOSITORY / "flows" / file), *map(str, arguments)]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


@pytest.mark.parametrize(
    ("deed", "how"),
    [
        pytest.param("libc _exit", "exit code 0", marks=pytest.mark.soak),
        pytest.param("libc exit", "exit code 3", marks=pytest.mark.soak),
        ("segmentation fault", "SIGSEGV"),
        pytest.param("SIGKILL", "SIGKILL", marks=pytest.mark.soak),
        pytest.param("close descriptors", "exit code 1", marks=pytest.mark.soak),
    ],
)
@pytest.mark.parametrize(
    "at", ["reset", pytest.param("render", marks=pytest.mark.soak), pytest.param("close", marks=pytest.mark.soak)]
)
def test_environment_that_ends_the_process_that_plans_is_refused(deed: str, how: str, at: str, data_root: Path) -> None:
    done = run(
        "generate.py", *HOSTILE, "--env-kwargs", f"deed:{deed}", f"at:{at}", "--random", "--data-root", data_root
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"error: Hostile-v0 ended the process that tried it out ({how}). Correct it, or what it uses.\n"
    )
    assert not data_root.exists()


def test_package_that_ends_the_process_when_it_is_imported_is_refused(tmp_path: Path, data_root: Path) -> None:
    (tmp_path / "rude_package.py").write_text("import ctypes\nctypes.CDLL(None)._exit(0)\n")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    asked = ("--env", "Rude-v0", "--env-gym-entrypoint", "rude_package:Env")
    for file, flags in (("generate.py", ("--random",)), ("register.py", ())):
        done = run(file, *asked, *flags, "--data-root", data_root, PYTHONPATH=path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert "error: Rude-v0 ended the process that tried it out (exit code 0)." in done.stderr
        assert not data_root.exists()


@pytest.mark.soak
@pytest.mark.parametrize(
    ("deed", "how"),
    [("segmentation fault", "SIGSEGV"), ("libc _exit", "exit code 0"), ("close descriptors", "exit code 1")],
)
def test_environment_that_ends_the_command_in_an_episode_is_told_and_what_is_published_stays(
    deed: str, how: str, data_root: Path, prefect_server: str
) -> None:
    from rlhfblender_core.rollout.seeding import episode_seed

    kwargs = ("--env-kwargs", f"deed:{deed}", f"of_seed:{episode_seed(0, 2)}")
    asked = (*HOSTILE, *kwargs, "--random", "--exp", "E", "--num-episodes", 4, "--no-render", "--data-root", data_root)
    done = run("generate.py", *asked, "--runner", "inprocess", PREFECT_API_URL=prefect_server)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"Hostile-v0, or what it uses, ended the process of the command ({how})." in line
    again = run("generate.py", *asked, "--runner", "process", "--workers", 1, PREFECT_API_URL=prefect_server)
    assert again.returncode == 1
    assert sorted(path.name for path in (data_root / "manifests/E/random").iterdir()) == ["0.json", "1.json", "3.json"]


_WAITING = """
import sys, time, types
from flows.cli import process
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("cleans up", flush=True)
        time.sleep(0.5)
        print("has cleaned up", flush=True)
        raise
sys.modules["waiting"] = types.SimpleNamespace(main=main)
process.start_command("waiting", is_flow=False)
"""


def started() -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to_all", [True, False])
def test_a_signal_is_heard_once_whoever_gets_it(number: signal.Signals, *, to_all: bool) -> None:
    with started() as process:
        (os.killpg if to_all else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, "cleans up\nhas cleaned up\n")
    assert err == "error: Stopped. What is published stays; run the same command again to finish.\n"


def test_the_command_dies_with_its_first_process() -> None:
    with started() as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        (command,) = map(int, children.read_text().split())
        process.kill()
        process.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{command}").exists() and "Z (zombie)" not in Path(f"/proc/{command}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_signal_before_the_command_can_handle_it_ends_it_as_it_would_any_process() -> None:
    script = (
        "import os, signal, time\n"
        "from flows.cli.outliving import go_on_in_a_fork\n"
        "go_on_in_a_fork()\n"
        "os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(60)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")
