"""The tables are there and of today's revision: checked at every opening, migrated when they aren't.

The check is one small query. Alembic is imported only when there is something to migrate: the tables of a new registry
are made as the models have them.
"""

import sqlite3
import threading
import time

from sqlalchemy import Column, Connection, Engine, MetaData, PrimaryKeyConstraint, String, Table, inspect, text

from rlhfblender_core.errors import RegistryNotUsableError
from rlhfblender_core.registry.engine import SQLITE_BUSY_TIMEOUT_S, reading, shown_url, sqlite_file
from rlhfblender_core.registry.migrations import HEAD, REVISIONS, VERSION_TABLE, tables_since
from rlhfblender_core.registry.models import Base

#: "RLHFBlen" in ASCII: the number of the lock under which one process at a time migrates a PostgreSQL database.
_ADVISORY_LOCK = 0x524C4846426C656E

#: As Alembic makes it.
_versions = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)

# Alembic keeps the running migration in a module, so that threads must take turns whatever their databases.
_one_migration_per_process = threading.Lock()


def revision_of(engine: Engine) -> str | None:
    """The revision of the registry's tables; None where there are none of ours.

    Raises:
        RegistryNotUsableError: a newer version of this project made them, or the file does things by itself.
    """
    with reading(engine).connect() as connection:
        return _revision(connection)


def ensure_schema(engine: Engine) -> None:
    """Brings the tables to today's revision; any number of processes may do this at the same moment.

    Raises:
        RegistryNotUsableError: a newer version of this project made them, tables of the same names are others', or the
            file does things by itself.
    """
    with reading(engine).connect() as connection:
        if _is_current(connection):
            return
        _refuse_link_to_others(connection)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            _prepare_sqlite(connection)
        # On SQLite the transaction is the lock (it begins with IMMEDIATE); on PostgreSQL it holds one.
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
            if not _is_current(connection):
                _refuse_tables_of_others(connection)
                if _revision(connection) is None:
                    _make_tables(connection)
                else:
                    _migrate(connection)
        if engine.dialect.name == "sqlite":
            _driver_of(connection).execute("PRAGMA foreign_keys = ON")


def _is_current(connection: Connection) -> bool:
    return _revision(connection) == HEAD


def _revision(connection: Connection) -> str | None:
    _refuse_what_acts(connection)  # before anything is read
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 (a constant)
    if revision is not None and revision not in REVISIONS:
        raise RegistryNotUsableError(
            f"The registry {shown_url(connection.engine.url)} has revision {revision!r}, made by a newer version of "
            f"this project (this one knows up to {HEAD!r}). Update the project, or choose another --database-url."
        )
    return None if revision is None else str(revision)


def _refuse_what_acts(connection: Connection) -> None:
    """Raises RegistryNotUsableError where an SQLite file has views or triggers.

    Ours have none, and reading or writing would run what they say, without an end if they like.
    """
    if connection.engine.dialect.name != "sqlite":
        return
    found = connection.scalars(text("SELECT type FROM sqlite_master WHERE type IN ('view', 'trigger')")).all()
    if found:
        raise RegistryNotUsableError(
            f"The registry {shown_url(connection.engine.url)} has a {found[0]}, which this project's have not. If you "
            "don't know whose it is, move the file away; `python flows/verify.py --repair` fills a new one from the "
            "manifests."
        )


def _refuse_link_to_others(connection: Connection) -> None:
    """Raises RegistryNotUsableError for a link to another program's SQLite file: somebody's data root may have one.

    Who names a database of their own has the registry live beside its tables.
    """
    file = sqlite_file(connection.engine.url)
    if file is not None and file.is_symlink() and inspect(connection).get_table_names() and not _revision(connection):
        raise RegistryNotUsableError(
            f"The registry {file} is a link to another program's database, {file.resolve()}. Remove the link if you "
            "don't know whose it is, or name that database by --database-url."
        )


def _refuse_tables_of_others(connection: Connection) -> None:
    taken = sorted(set(inspect(connection).get_table_names()) & tables_since(_revision(connection)))
    if taken:
        raise RegistryNotUsableError(
            f"The database {shown_url(connection.engine.url)} has tables of another program ({', '.join(taken)}). "
            "Choose another --database-url."
        )


def _driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        raise TypeError(f"expected the sqlite3 module's connection, got {type(driver).__name__}")
    return driver


def _prepare_sqlite(connection: Connection) -> None:
    driver = _driver_of(connection)
    # A migration that copies a table drops the old one, and with foreign keys on that would delete the rows that
    # refer to it. Can't be set inside a transaction.
    driver.execute("PRAGMA foreign_keys = OFF")
    _use_wal(driver)


def _use_wal(driver: sqlite3.Connection) -> None:
    """Sets, for good, the journal with which readers and a writer don't wait for each other."""
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT_S
    while True:
        try:
            # On file systems that can't do it, SQLite keeps its other journal, which is right, only slower.
            driver.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            # SQLite's own busy timeout doesn't cover the switch when several processes do it at once.
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _make_tables(connection: Connection) -> None:
    Base.metadata.create_all(connection, checkfirst=False)
    _versions.create(connection, checkfirst=False)
    connection.execute(_versions.insert().values(version_num=HEAD))


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", "rlhfblender_core.registry:migrations")
    config.set_main_option("path_separator", "os")
    with _one_migration_per_process:
        command.upgrade(config, "head")
