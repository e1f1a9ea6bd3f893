"""The one place that turns errors of SQLAlchemy and its drivers into ours: worth another try, or the user's.

Messages are one line and never show a password.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from rlhfblender_core.errors import (
    RegistryConflictError,
    RegistryFullError,
    RegistryNotUsableError,
    RegistryUnavailableError,
    RLHFBlenderError,
)
from rlhfblender_core.registry.engine import secrets_in, shown_url

_DISK_FULL = "can't be written: the disk is full. Free some space and run the same command again."

# By the start of SQLite's error names (https://sqlite.org/rescode.html): what was found, and what to do.
_SQLITE_PERMANENT = {
    "SQLITE_FULL": _DISK_FULL,
    "SQLITE_IOERR_SHMSIZE": _DISK_FULL,  # no room for the journal's index
    "SQLITE_IOERR": "can't be read or written (disk I/O error). Check the disk and its free space.",
    "SQLITE_READONLY": "can't be written: it is read-only. Make it writable, or choose another --database-url.",
    "SQLITE_CANTOPEN": "can't be opened. Check that its folder exists and can be written.",
    "SQLITE_PROTOCOL": "can't be locked. Check that its disk can be written.",  # an ext4 after an error of the disk
    "SQLITE_PERM": "can't be opened: permission denied.",
    "SQLITE_NOTADB": "is no SQLite database. Choose another --database-url, or move the file away.",
    "SQLITE_CORRUPT": "is damaged. Move the file away; `python flows/verify.py --repair` fills a new one from the "
    "manifests.",
}

# PostgreSQL's error codes (https://www.postgresql.org/docs/current/errcodes-appendix.html): connection lost or
# refused for now, serialisation failure, deadlock, lock timeout, too many connections, shutting down or starting.
_POSTGRES_TRANSIENT = ("08", "40001", "40P01", "53300", "55P03", "57P")
_POSTGRES_PERMANENT = {
    "28": "refuses this user or password. Check the user and password in --database-url.",
    "3D000": "doesn't exist. Create it, or choose another --database-url.",
    "42501": "may not be written by this user. Grant the rights, or choose another user.",
    "25006": "is read-only. Choose a --database-url that can be written.",
    "53100": "can't be written: the server's disk is full.",
}
# libpq gives no code to errors while it connects, only the server's words.
_CONNECTING_TRANSIENT = ("starting up", "shutting down", "recovery mode", "too many clients", "connection slots")
_CONNECTING_PERMANENT = {"authentication failed": "28", "no password supplied": "28", "does not exist": "3D000"}


@contextmanager
def translated_errors(url: URL, *, opening: bool = False) -> Iterator[None]:
    """Raises errors of the database as this project's own.

    Args:
        url: of the database, to be named in the message.
        opening: nothing was heard from the database yet, so that a server out of reach is a wrong URL rather than a
            lost connection.

    Raises:
        RegistryUnavailableError: locked, lost, overloaded: worth another try.
        RegistryNotUsableError: anything else that is wrong with the database.
        RegistryConflictError: a row that this one refers to was deleted meanwhile.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise _translated(error, url, opening=opening) from error
    except sqlite3.Error as error:
        raise _translated_sqlite(error, url) from error
    except (
        ValueError,
        TypeError,
        LookupError,
        RecursionError,
    ) as error:  # a flipped bit in a name, a time or a column of JSON, seen by SQLAlchemy
        raise RegistryNotUsableError(
            f"The registry {shown_url(url)} is damaged ({_redacted(error, url)}). Restore it, or choose another one."
        ) from error


def _translated(error: SQLAlchemyError, url: URL, *, opening: bool) -> RLHFBlenderError:
    if isinstance(error, PoolTimeoutError):
        return RegistryUnavailableError(f"The registry {shown_url(url)} is busy: no free connection. Try again.")
    if isinstance(error, IntegrityError):
        return RegistryConflictError(
            "What this run refers to was deleted from the registry by another one meanwhile. Run the command again."
        )
    if not isinstance(error, DBAPIError) or error.orig is None:
        return RegistryNotUsableError(f"The registry {shown_url(url)} failed: {_redacted(error, url)}")
    if isinstance(error.orig, sqlite3.Error):
        return _translated_sqlite(error.orig, url)
    return _translated_postgres(error, error.orig, url, opening=opening)


def _translated_sqlite(error: sqlite3.Error, url: URL) -> RLHFBlenderError:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return RegistryUnavailableError(f"The registry {shown_url(url)} is locked by another process. Try again.")
    for start, problem in _SQLITE_PERMANENT.items():
        if name.startswith(start):
            kind = RegistryFullError if problem is _DISK_FULL else RegistryNotUsableError
            return kind(f"The registry {shown_url(url)} {problem}")
    return RegistryNotUsableError(f"The registry {shown_url(url)} failed: {_redacted(error, url)}")


def _translated_postgres(error: DBAPIError, cause: BaseException, url: URL, *, opening: bool) -> RLHFBlenderError:
    text = str(cause)
    code = getattr(cause, "sqlstate", None) or next(
        (code for words, code in _CONNECTING_PERMANENT.items() if words in text), ""
    )
    database = f"The registry's database {shown_url(url)}"
    for start, problem in _POSTGRES_PERMANENT.items():
        if code.startswith(start):
            kind = RegistryFullError if start == "53100" else RegistryNotUsableError
            return kind(f"{database} {problem}")
    if code.startswith(_POSTGRES_TRANSIENT) or any(words in text for words in _CONNECTING_TRANSIENT):
        return RegistryUnavailableError(f"{database} is not available now ({_redacted(cause, url)}). Try again.")
    if code:
        return RegistryNotUsableError(f"{database} failed: {_redacted(cause, url)}")
    if opening and not error.connection_invalidated:
        return RegistryNotUsableError(
            f"{database} can't be reached ({_redacted(cause, url)}). Check --database-url and that the server runs."
        )
    return RegistryUnavailableError(
        f"The connection to {shown_url(url)} was lost ({_redacted(cause, url)}). Try again."
    )


def _redacted(error: BaseException, url: URL) -> str:
    """The error as one line, without the password, wherever the URL had it."""
    text = " ".join(str(error).split())
    for secret in secrets_in(url):
        text = text.replace(secret, "***")
    return text
