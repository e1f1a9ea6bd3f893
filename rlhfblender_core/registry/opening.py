"""How a registry is opened: made where there is none, brought to today's revision, or read from a read-only disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine

from rlhfblender_core.errors import RegistryNotUsableError
from rlhfblender_core.registry.engine import (
    checked_url,
    copied_to_memory,
    make_parent_folder,
    readable_url,
    reading,
    shown_url,
    sqlite_file,
)
from rlhfblender_core.registry.failures import translated_errors
from rlhfblender_core.registry.migrations import HEAD
from rlhfblender_core.registry.schema import ensure_schema, revision_of
from rlhfblender_core.registry.shared_engines import borrow_engine, give_back
from rlhfblender_core.registry.store import Registry


def open_registry(url: str, *, create: bool = True, reached_before: bool = False) -> Registry:
    """The registry at a database URL, with its tables brought to today's revision.

    Args:
        url: ``sqlite:////folder/file.db`` or ``postgresql+psycopg://user:password@host/database``.
        create: make the file and the tables if they aren't there.
        reached_before: this run has had an answer from the database, so that a server out of reach is a lost
            connection (worth another try) rather than a wrong URL.

    Raises:
        RegistryNotUsableError: bad URL, missing driver, server out of reach, nothing there (without ``create``), a
            newer version's tables, a disk that is full or read-only.
        RegistryUnavailableError: locked, overloaded or starting up: worth another try.
    """
    if not create:
        registry = open_existing_registry(url, reached_before=reached_before)
        if registry is None:
            database = shown_url(checked_url(url))
            if reached_before:
                raise RegistryNotUsableError(f"The registry {database} is gone: was its disk unmounted, or it deleted?")
            raise RegistryNotUsableError(
                f"There is no registry at {database}. `python flows/generate.py --env … --random` makes one; or choose "
                "another --data-root or --database-url."
            )
        return registry
    target = checked_url(url)
    make_parent_folder(target)
    return _opened(borrow_engine(target), reached_before=reached_before)


def open_existing_registry(url: str, *, reached_before: bool = False) -> Registry | None:
    """The registry at a database URL; None, and nothing made, if there is none. On a read-only disk it can be read.

    Args:
        url: as for :func:`open_registry`.
        reached_before: as for :func:`open_registry`.

    Raises:
        RegistryNotUsableError: as :func:`open_registry`.
        RegistryUnavailableError: as :func:`open_registry`.
    """
    target = checked_url(url)
    file = sqlite_file(target)
    if file is not None and not _exists(file):
        return None
    engine = borrow_engine(readable_url(target))
    with _given_back_on_failure(engine), translated_errors(target, opening=not reached_before):
        revision = revision_of(engine)
    if revision is None:
        give_back(engine)
        return None
    if revision == HEAD:
        return Registry(engine)
    if engine.url == target:
        return _opened(engine, reached_before=True)
    return _opened_in_memory(engine)


def _opened_in_memory(engine: Engine) -> Registry:
    """The same of today's revision and to be read only: on a read-only disk it stays as it is."""
    with _given_back_on_failure(engine):
        copy = copied_to_memory(engine)
    give_back(engine)
    registry = _opened(copy, reached_before=True)
    with reading(copy).connect() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    return registry


@contextmanager
def _given_back_on_failure(engine: Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:  # an interrupt, too, must leave no connection open
        give_back(engine)
        raise


@contextmanager
def registry_if_any(url: str, *, reached_before: bool = False) -> Iterator[Registry | None]:
    """The registry at a database URL while the context lasts; None, and nothing made, if there is none.

    Args:
        url: as for :func:`open_registry`.
        reached_before: likewise.
    """
    registry = open_existing_registry(url, reached_before=reached_before)
    if registry is None:
        yield None
    else:
        with registry:
            yield registry


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError as error:
        raise RegistryNotUsableError(
            f"The registry {file} can't be opened ({error.strerror}). Check its permissions, or --database-url."
        ) from error


def _opened(engine: Engine, *, reached_before: bool) -> Registry:
    with _given_back_on_failure(engine), translated_errors(engine.url, opening=not reached_before):
        ensure_schema(engine)
    return Registry(engine)
