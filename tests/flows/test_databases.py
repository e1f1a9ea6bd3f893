"""The real commands with the registry on PostgreSQL: it restarts, it is gone, and its password stays a secret."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prefect.logging.handlers import APILogHandler

from flows.cli.arguments import REFUSED
from flows.verify import verify
from rlhfblender_core.registry import open_registry
from tests.support.databases import postgres_server

CommandLine = Callable[..., Any]
COUNTING = (
    "--env",
    "Counting-v0",
    "--env-gym-entrypoint",
    "tests.support.environments_for_tests.counting:Counting",
    "--random",
)
SECRET = "correct-horse-battery-staple"  # nothing else is spelt like this


@pytest.fixture
def with_password(new_postgres_url: str) -> str:
    """The URL of an empty database, with a password in it."""
    return new_postgres_url.replace("postgres:@", f"postgres:{SECRET}@")


@pytest.mark.usefixtures("prefect")
def test_a_password_is_nowhere_to_be_seen(
    with_password: str,
    command_line: CommandLine,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefect_server: str,
) -> None:
    assert SECRET in with_password
    locations = ("--data-root", data_root, "--database-url", with_password)
    generate = ("generate", *COUNTING, "--exp", "secret", "--num-episodes", 2, "--runner", "inprocess", *locations)
    results = [command_line(*generate), command_line("verify", *locations)]
    nowhere = with_password.replace("/registry?", "/nowhere?")
    results.append(command_line(*generate[:-1], nowhere))
    results.append(command_line("register", "--list", *locations))
    assert [result.code for result in results] == [0, 0, 2, 0]
    with open_registry(with_password) as registry:
        assert len(registry.list_episodes("secret")) == 2
    assert SECRET not in "".join(result.out + result.err for result in results)
    assert all(SECRET.encode() not in path.read_bytes() for path in data_root.rglob("*") if path.is_file())
    APILogHandler().flush()
    for kind in ("flow_runs", "task_runs", "logs", "artifacts"):
        found = _all_once_there_is(b"secret", f"{prefect_server}/{kind}/filter")  # the experiment's name
        assert SECRET.encode() not in found


def _all_once_there_is(expected: bytes, url: str) -> bytes:
    """Everything of a kind that the server holds, which records task runs behind a run's back."""
    deadline = time.monotonic() + 60
    found = b""
    while expected not in found and time.monotonic() < deadline:
        pages: list[bytes] = []
        while page := _ask(url, {"limit": 200, "offset": 200 * len(pages)}).removeprefix(b"[]"):
            pages.append(page)
        found = b"".join(pages)
    assert expected in found
    return found


def _ask(url: str, question: dict[str, object]) -> bytes:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=json.dumps(question).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


@pytest.mark.usefixtures("prefect")
def test_a_password_is_refused_as_a_parameter(with_password: str, data_root: Path) -> None:
    data_root.mkdir()
    url = with_password.replace(SECRET, "an-open-secret")  # that of another test: this one is stored, with the run
    state = verify(data_root=str(data_root), database_url=url, return_state=True)
    assert (state.name, "an-open-secret" in state.message) == (REFUSED, False)
    assert "RLHFBLENDER_DATABASE_URL" in state.message


@pytest.mark.usefixtures("prefect")
def test_a_server_that_restarts_is_waited_for(command_line: CommandLine, data_root: Path) -> None:
    with postgres_server() as server:
        url = server.get_uri(driver="psycopg")

        def restart() -> None:
            deadline = time.monotonic() + 60
            while not list(data_root.rglob("manifests/E/random/*.json")) and time.monotonic() < deadline:
                time.sleep(0.02)
            server.stop()
            time.sleep(1.0)
            server.start()

        accident = threading.Thread(target=restart)
        accident.start()
        locations = ("--data-root", data_root, "--database-url", url)
        result = command_line("generate", *COUNTING, "--exp", "E", "--num-episodes", 40, "--no-render", *locations)
        accident.join()
        assert result.code == 0, result.err
        with open_registry(url) as registry:
            assert len(registry.list_episodes("E")) == 40
        server.stop()
        gone = command_line("generate", *COUNTING, "--exp", "E", "--num-episodes", 41, "--no-render", *locations)
        assert (gone.code, gone.out, gone.err.count("\n")) == (2, "", 1)
        assert "can't be reached" in gone.err
        server.start()


@pytest.mark.usefixtures("prefect")
def test_a_run_holds_few_connections(new_postgres_url: str, command_line: CommandLine, data_root: Path) -> None:
    most = 0
    over = threading.Event()
    engine = sa.create_engine(new_postgres_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")

    def count() -> None:
        nonlocal most
        with engine.connect() as connection:
            while not over.wait(0.01):
                others = (
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                most = max(most, int(connection.exec_driver_sql(others).scalar_one()))

    counter = threading.Thread(target=count)
    counter.start()
    locations = ("--data-root", data_root, "--database-url", new_postgres_url)
    flags = ("--exp", "E", "--num-episodes", 60, "--no-render", "--runner", "process", "--workers", 4)
    result = command_line("generate", *COUNTING, *flags, *locations)
    over.set()
    counter.join()
    assert result.code == 0
    # The workers have none; the run has one for its heartbeat, each shard one while it is claimed or written.
    assert 1 <= most <= 4 + 2 + 1
