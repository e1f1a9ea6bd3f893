"""Connections to the registry's database: which URLs are understood, and how SQLite and PostgreSQL are set up."""

import os
import sqlite3
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from rlhfblender_core.errors import RegistryNotUsableError

#: How long a writer waits for the others on SQLite, in seconds.
SQLITE_BUSY_TIMEOUT_S = 30.0
#: How libpq talks to a PostgreSQL server, unless the URL says otherwise: seconds to connect, and about a minute until a
#: server that has silently gone is given up; the system's own limits are hours.
POSTGRES_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,  # milliseconds
}

#: Of a pool: whoever is at work has a connection, and threads that share an engine don't wait for each other's.
_NO_LIMIT = -1

_FORMS = "Use sqlite:////folder/file.db or postgresql+psycopg://<user>:<password>@host/database."
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


def checked_url(text: str) -> URL:
    """The URL in parts, with the driver that this project uses.

    Raises:
        RegistryNotUsableError: it is no URL, or one of another kind of database. The message never shows the URL,
            which may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # ValueError: a port that is no number
        raise RegistryNotUsableError(f"The database URL can't be understood. {_FORMS}") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise RegistryNotUsableError(f"The registry can't be kept in {url.drivername!r} databases. {_FORMS}")
    if driver != "sqlite" and "@" in (url.host or ""):
        # "user:p@ss@host": part of the password would pass for the host, and be shown.
        raise RegistryNotUsableError("The database URL has more than one '@'. Write an '@' in the password as %40.")
    if driver == "sqlite" and url.host:
        raise RegistryNotUsableError(f"The database URL needs one slash more before an absolute path. {_FORMS}")
    return url.set(drivername=driver)


def has_password(text: str) -> bool:
    """Whether a database URL holds a password, or may hold one because it can't be understood."""
    try:
        return bool(secrets_in(make_url(text)))
    except (ArgumentError, ValueError):
        return "@" in text


def secrets_in(url: URL) -> list[str]:
    """What of the URL nobody may see, wherever it stands in it."""
    found = (url.password, url.query.get("password"), url.query.get("sslpassword"))
    return [secret for secret in found if isinstance(secret, str) and secret]


def shown_url(url: URL) -> str:
    """How messages name the database: the file, or the server and database, without user and password."""
    if url.drivername == "sqlite":
        return str(sqlite_file(url) or "in memory")
    host = url.host or url.query.get("host") or "localhost"
    return f"{url.database or 'postgres'} on {host}{f':{url.port}' if url.port else ''}"


def registry_location(text: str) -> str:
    """Which database a URL means, wherever it is opened from: the resolved file, or server and database.

    Raises:
        RegistryNotUsableError: it is no URL of a registry.
    """
    url = checked_url(text)
    file = sqlite_file(url)
    return shown_url(url) if file is None else str(file.resolve())


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database; None for other databases and those in memory."""
    database = url.database or ""
    if url.drivername == "sqlite" and database.startswith("file:") and "uri" in url.query:
        database = "" if url.query.get("mode") == "memory" else unquote(urlsplit(database).path)
    if url.drivername != "sqlite" or database in ("", ":memory:"):
        return None
    return Path(database)


def readable_url(url: URL) -> URL:
    """The URL by which an existing database can be read, whether or not its folder can be written.

    SQLite makes files beside the database even to read it, and fails where it can't. Told that the database is
    immutable, it needs none; that is right unless there are such files already, or another machine writes meanwhile.
    """
    file = sqlite_file(url)
    if file is None or os.access(file.parent, os.W_OK) or file.with_name(f"{file.name}-wal").exists():
        return url
    return url.set(database=f"file:{quote(str(file.absolute()))}", query={"immutable": "1", "uri": "true"})


def make_parent_folder(url: URL) -> None:
    """Makes the folder of an SQLite file, if it isn't there.

    Raises:
        RegistryNotUsableError: it can't be made.
    """
    file = sqlite_file(url)
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistryNotUsableError(
            f"The registry's folder {file.parent} can't be made ({error.strerror}). Choose another --database-url."
        ) from error


def make_registry_engine(url: URL) -> Engine:
    """An engine whose transactions are begun as writers, but for those of :func:`reading`.

    Raises:
        RegistryNotUsableError: the database's driver isn't installed.
    """
    if url.drivername == "sqlite":
        # isolation_level None: the driver would begin transactions by itself, too late and as readers.
        engine = create_engine(
            url, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_S, "isolation_level": None}, **_pooled(url)
        )
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = {name: value for name, value in POSTGRES_OPTIONS.items() if name not in url.query}
    try:
        # pre_ping: a connection that was lost while nobody used it is replaced, not reported.
        return create_engine(url, connect_args=options, pool_pre_ping=True, max_overflow=_NO_LIMIT)
    except ImportError as error:
        raise RegistryNotUsableError(
            "A registry on PostgreSQL needs the driver psycopg. Install it: pip install 'rlhfblender-data[postgres]'."
        ) from error


def _pooled(url: URL) -> dict[str, Any]:
    return {} if sqlite_file(url) is None else {"max_overflow": _NO_LIMIT}


def copied_to_memory(engine: Engine) -> Engine:
    """An engine of a copy of the SQLite database in memory, where what lies on a read-only disk can be migrated."""
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    pooled = engine.raw_connection()
    try:
        cast("sqlite3.Connection", pooled.driver_connection).backup(memory)
    finally:
        pooled.close()
    copy = create_engine("sqlite://", creator=lambda: memory, poolclass=StaticPool)
    event.listen(copy, "connect", _set_up_sqlite)
    event.listen(copy, "begin", _begin_sqlite)
    return copy


def reading(engine: Engine) -> Engine:
    """The same engine and connections, for transactions that only read and so never wait for writers."""
    return engine.execution_options(sqlite_begin="BEGIN")


def _set_up_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a transaction that reads first and writes later fails at once when another one wrote in between,
    # whatever the busy timeout (986 of 1,600 transactions of 8 processes; none with IMMEDIATE).
    connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN IMMEDIATE"))
