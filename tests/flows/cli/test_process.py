"""How a command ends when it is told to."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# A command that doesn't let itself be interrupted, like one that hangs in a lock or in an environment.
_DEAF = """
import signal, sys, time, types
from flows.cli import process
process._GRACE_S = 1
def main():
    if {handled_by_others}:
        def handle(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, handle)
    while True:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
sys.modules["deaf"] = types.SimpleNamespace(main=main)
process.run_command("deaf")
"""


@pytest.mark.parametrize("handled_by_others", [False, True])  # True: Prefect handles SIGTERM during a flow
def test_a_stopped_command_that_hangs_is_ended_after_a_while(*, handled_by_others: bool) -> None:
    script = _DEAF.format(handled_by_others=handled_by_others)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert err == "error: Stopped. What is published stays; run the same command again to finish.\n"


@pytest.mark.soak
def test_a_signal_to_a_process_that_an_environment_forked_does_not_end_the_command() -> None:
    script = (
        "import os, signal, sys, time, types\n"
        "from flows.cli import process\n"
        "process._GRACE_S = 0.1\n"
        "def main():\n"
        "    ready, tell = os.pipe()\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        os.write(tell, b'.')\n"
        "        time.sleep(60)\n"
        "    os.read(ready, 1)\n"
        "    os.kill(child, signal.SIGTERM)\n"
        "    os.waitpid(child, 0)\n"
        "    time.sleep(1)\n"
        "    return 0\n"
        "sys.modules['forking'] = types.SimpleNamespace(main=main)\n"
        "process.run_command('forking')"
    )
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_nohup_ignores_stays_ignored() -> None:
    script = (
        "import signal, sys, types; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from flows.cli import process\n"
        "sys.modules['calm'] = types.SimpleNamespace(main=lambda: signal.raise_signal(signal.SIGHUP) or 0)\n"
        "process.run_command('calm')"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_server_that_does_not_answer_is_named_in_one_line(command_line: Callable[..., Any], data_root: Path) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/api"
    with temporary_settings({PREFECT_API_URL: address}):
        result = command_line("generate", "--env", "CartPole-v1", "--random", "--data-root", data_root)
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert f"Prefect's server at {address} can't be reached" in result.err
    assert not data_root.exists()


def test_an_interrupt_that_nobody_sent_is_told() -> None:
    script = (
        "import signal, sys, types\n"
        "from flows.cli import process\n"
        "sys.modules['rude'] = types.SimpleNamespace(main=lambda: signal.default_int_handler(2, None))\n"
        "process.run_command('rude')"
    )
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "raised KeyboardInterrupt" in result.stderr


def test_a_signal_that_a_library_makes_an_error_of_its_own_stops_the_command() -> None:
    """As pydantic does while it builds a model: a training ended in a traceback, one time in some hundred."""
    script = (
        "import os, signal, sys, types\n"
        "from flows.cli import process\n"
        "def main():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except BaseException:\n"
        "        raise ValueError('a schema') from None\n"
        "sys.modules['wrapping'] = types.SimpleNamespace(main=main)\n"
        "process.run_command('wrapping', is_flow=False)"
    )
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (143, 1), result
    assert "Stopped." in result.stderr


_BUSY = """
import sys, threading, time, types
from flows.cli import process
process._GRACE_S = 1
def main():
    threading.Thread(target=time.sleep, args=(600,)).start()
    print("done")
    return 1
sys.modules["busy"] = types.SimpleNamespace(main=main)
process.start_command("busy", is_flow=False)
"""


def test_a_command_ends_though_an_environment_left_a_thread_that_does_not() -> None:
    done = subprocess.run([sys.executable, "-c", _BUSY], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "done\n")


@pytest.mark.parametrize(
    ("arguments", "seed", "expected"),
    [
        (("--runner", "inprocess"), None, "6640"),
        (("--runner=dask",), None, "6640"),
        (("--runner", "ray"), "5", "5"),
        (("--runner", "process"), None, None),
    ],
)
def test_a_command_that_makes_environments_itself_hashes_texts_as_workers_do(
    arguments: tuple[str, ...], seed: str | None, expected: str | None, tmp_path: Path
) -> None:
    script = "import os; from flows.cli import process\nprocess._hash_texts_alike()\n"
    (tmp_path / "command.py").write_text(f"{script}print(os.environ.get('PYTHONHASHSEED'), hash('a'), 'done')\n")
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONHASHSEED"}
    if seed is not None:
        variables["PYTHONHASHSEED"] = seed
    command = [sys.executable, str(tmp_path / "command.py"), *arguments]
    said = {subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert [line.split()[0] for line in said] == [str(expected)] * len(said)
    assert len(said) == (1 if expected else 2)
