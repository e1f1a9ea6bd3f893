"""What goes wrong with databases, as this project's errors: the user's, or worth another try."""

import contextlib
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from rlhfblender_core.errors import RegistryNotUsableError, RegistryUnavailableError
from rlhfblender_core.registry import EnvironmentRecord, Registry, engine, open_existing_registry, open_registry
from rlhfblender_core.registry.migrations import VERSION_TABLE

ENVIRONMENT = EnvironmentRecord(env_id="A-v0")


def is_one_line_with_advice(error: BaseException) -> bool:
    return "\n" not in str(error) and str(error).endswith(".")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense", "can't be understood"),
        ("postgresql://user:s3cret@host:s3cret/db", "can't be understood"),
        ("postgresql://user:pass@s3cret@host/db", "more than one '@'"),
        ("mysql://user:s3cret@host/db", "'mysql' databases"),
        ("sqlite+aiosqlite:///file.db", r"'sqlite\+aiosqlite' databases"),
        ("sqlite://folder/file.db", "one slash more"),
        ("sqlite:////dev/null/registry/file.db", "can't be made"),
        ("sqlite:////proc/rlhfblender.db", "can't be opened"),
    ],
)
def test_an_unusable_url_is_refused_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(RegistryNotUsableError, match=problem) as caught:
        open_registry(url)
    assert is_one_line_with_advice(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_opening_only_what_exists_makes_nothing(new_sqlite_url: str, tmp_path: Path) -> None:
    assert open_existing_registry(new_sqlite_url) is None
    with pytest.raises(RegistryNotUsableError, match="no registry"):
        open_registry(new_sqlite_url, create=False)
    assert list(tmp_path.iterdir()) == []


def test_opening_only_what_exists_leaves_an_empty_server_empty(new_postgres_url: str) -> None:
    assert open_existing_registry(new_postgres_url) is None
    connection = sa.create_engine(new_postgres_url, poolclass=sa.NullPool).connect()
    with connection:
        assert sa.inspect(connection).get_table_names() == []


def test_opening_only_what_exists_opens_it(new_url: str) -> None:
    with open_registry(new_url) as registry:
        registered = registry.ensure_environment(ENVIRONMENT)
    existing = open_existing_registry(new_url)
    assert existing is not None
    with existing:
        assert existing.list_environments() == [registered]


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("These are notes and no database. " * 100)
    with pytest.raises(RegistryNotUsableError, match=r"notes\.txt is no SQLite database"):
        open_registry(f"sqlite:///{file}")
    assert file.read_text().startswith("These are notes")


def test_a_locked_database_is_worth_another_try(new_sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SQLITE_BUSY_TIMEOUT_S", 0.05)
    with open_registry(new_sqlite_url) as registry:
        other = sqlite3.connect(new_sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryUnavailableError, match="locked by another process") as caught:
            registry.ensure_environment(ENVIRONMENT)
        assert is_one_line_with_advice(caught.value)
        assert registry.list_environments() == []  # who reads doesn't wait
        other.close()
        assert registry.ensure_environment(ENVIRONMENT).env_id == "A-v0"


def test_a_full_disk_is_the_users_to_mend(new_sqlite_url: str) -> None:
    with open_registry(new_sqlite_url) as registry:

        def fill(connection: sqlite3.Connection, _entry: object) -> None:
            connection.execute("PRAGMA max_page_count = 1")

        sa.event.listen(registry._engine, "connect", fill)
        registry._engine.dispose()
        with pytest.raises(RegistryNotUsableError, match="the disk is full"):
            registry.ensure_environment(EnvironmentRecord(env_id="A-v0", description="x" * 100_000))
        sa.event.remove(registry._engine, "connect", fill)
        registry._engine.dispose()
        assert registry.list_environments() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with 1 MiB, which can be remounted read-only."""
    disk = tmp_path / "small disk %"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"can't mount a file system: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_registry_survives_a_disk_that_fills_up(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/rlhfblender.db"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (1024 - 32) * 1024)
    with pytest.raises(RegistryNotUsableError, match="the disk is full"):
        open_registry(url)
    filler.unlink()
    with open_registry(url) as registry:
        assert registry.ensure_environment(ENVIRONMENT).env_id == "A-v0"


def test_a_registry_on_a_read_only_disk_can_be_read(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/rlhfblender.db"
    with open_registry(url) as registry:
        registered = registry.ensure_environment(ENVIRONMENT)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    existing = open_existing_registry(url)
    assert existing is not None
    with existing:
        assert existing.list_environments() == [registered]
        with pytest.raises(RegistryNotUsableError, match=r"small disk %/rlhfblender\.db can't be written: it is read-"):
            existing.ensure_environment(EnvironmentRecord(env_id="B-v0"))


def test_a_read_only_database_can_be_read(new_sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_registry(new_sqlite_url) as registry:
        registry.ensure_environment(ENVIRONMENT)
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///file:{new_sqlite_url.removeprefix('sqlite:///')}?mode=ro&uri=true"
    with open_registry(url) as registry:
        assert len(registry.list_environments()) == 1
        with pytest.raises(RegistryNotUsableError, match="it is read-only"):
            registry.ensure_environment(EnvironmentRecord(env_id="B-v0"))
    existing = open_existing_registry(url)
    assert existing is not None
    existing.close()
    assert not list(tmp_path.glob("file:*"))


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RegistryNotUsableError, match=r"rlhfblender-data\[postgres\]"):
        open_registry("postgresql+psycopg://user:s3cret@127.0.0.1/db")


def test_a_server_out_of_reach_is_a_wrong_url_until_it_was_reached_once() -> None:
    pytest.importorskip("psycopg", reason="pip install 'rlhfblender-data[postgres]'")
    url = "postgresql://user:s3cret@127.0.0.1:1/db"
    with pytest.raises(RegistryNotUsableError, match=r"db on 127\.0\.0\.1:1 can't be reached") as first:
        open_registry(url)
    with pytest.raises(RegistryUnavailableError, match="was lost") as later:
        open_registry(url, reached_before=True)
    for caught in (first, later):
        assert is_one_line_with_advice(caught.value)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_database_that_the_server_does_not_have_is_named(postgres_url: Callable[[str], str]) -> None:
    with pytest.raises(RegistryNotUsableError, match=r"nowhere on .* doesn't exist\. Create it"):
        open_registry(postgres_url("nowhere"))


def test_a_wrong_password_is_the_users_to_mend(postgres_url: Callable[[str], str]) -> None:
    url = postgres_url("registry").replace("postgres:@", "locked:s3cret@")
    with pytest.raises(RegistryNotUsableError, match=r"refuses this user or password\. Check the user") as caught:
        open_existing_registry(url)
    assert is_one_line_with_advice(caught.value)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def end_other_connections(url: str) -> None:
    admin = sa.create_engine(url, poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_a_connection_lost_between_calls_is_replaced(new_postgres_url: str) -> None:
    with open_registry(new_postgres_url) as registry:
        registry.ensure_environment(ENVIRONMENT)
        end_other_connections(new_postgres_url)
        assert len(registry.list_environments()) == 1


def test_a_connection_lost_within_a_call_is_worth_another_try(new_postgres_url: str) -> None:
    with open_registry(new_postgres_url) as registry:

        def lose_the_connection() -> None:
            with registry._write() as session:
                session.execute(sa.text("SELECT 1"))
                end_other_connections(new_postgres_url)
                session.execute(sa.text("SELECT 1"))

        with pytest.raises(RegistryUnavailableError, match="Try again"):
            lose_the_connection()
        assert registry.list_environments() == []


def test_rights_that_are_missing_are_the_users_to_mend(new_postgres_url: str) -> None:
    open_registry(new_postgres_url).close()
    admin = sa.create_engine(new_postgres_url, poolclass=sa.NullPool)
    with admin.begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS reader")
        connection.exec_driver_sql("CREATE ROLE reader LOGIN PASSWORD 's3cret'")
    url = new_postgres_url.replace("postgres:@", "reader:s3cret@")
    with pytest.raises(RegistryNotUsableError, match="may not be written by this user"), open_registry(url) as registry:
        registry.ensure_environment(ENVIRONMENT)


def test_closing_twice_is_no_error(registry: Registry) -> None:
    registry.close()
    registry.close()


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        (
            f"DROP TABLE {VERSION_TABLE}; CREATE VIEW {VERSION_TABLE} AS WITH RECURSIVE n(i) AS "
            "(SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) AS version_num FROM n",
            "view",
        ),
        ("CREATE TRIGGER t AFTER INSERT ON projects BEGIN DELETE FROM episodes; END", "trigger"),
    ],
)
def test_a_file_that_does_things_by_itself_is_refused_before_it_can(tmp_path: Path, statement: str, what: str) -> None:
    url = f"sqlite:///{tmp_path / 'r.db'}"
    open_registry(url).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "r.db")) as connection:
        connection.executescript(statement)
    for opened in (open_registry, open_existing_registry):
        with pytest.raises(RegistryNotUsableError, match=f"has a {what}, which"):
            opened(url)
