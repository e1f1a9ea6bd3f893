"""Prefect's temporary server: several that start at once on a new home."""

import contextlib
import urllib.request
from pathlib import Path

import pytest

from flows.cli.temporary_server import TemporaryServer

_AT_ONCE = 4


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
