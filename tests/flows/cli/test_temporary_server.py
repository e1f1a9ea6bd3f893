"""Prefect's temporary server: several that start at once on a new home."""

import contextlib
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from flows.cli.temporary_server import TemporaryServer
from tests.support.soak import sampled

_AT_ONCE = 4


@pytest.mark.soak
def test_first_servers_started_at_once_on_a_new_home_all_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "new" / "prefect"))
    with contextlib.ExitStack() as stack:
        servers = [TemporaryServer() for _ in range(_AT_ONCE)]
        for server in servers:
            stack.callback(server.stop)
        for server in servers:  # as the command waits for its own
            with urllib.request.urlopen(f"{server.api_url}/health", timeout=150) as answer:
                assert answer.status == 200


@pytest.mark.parametrize(
    ("flag", "begun"),
    sampled([("--help", False), ("-h", False), ("--nonsense", True)], ("--help", False), ("--nonsense", True)),
)
def test_help_is_shown_without_a_server(flag: str, *, begun: bool, tmp_path: Path) -> None:
    log = tmp_path / "started"
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def note(event, arguments):\n"
        f"    if event == 'subprocess.Popen': open({str(log)!r}, 'a').write(str(arguments))\n"
        "sys.addaudithook(note)\n"
    )
    command = [sys.executable, str(Path(__file__).parents[3] / "flows" / "generate.py"), flag]
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == (2 if begun else 0)
    assert ("--num-episodes" in done.stdout) is not begun
    assert (log.exists() and "temporary_server" in log.read_text()) is begun
