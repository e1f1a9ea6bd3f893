"""Engines that all openings of a registry in this process share.

To an engine belong the statements that SQLAlchemy has compiled: with one for each opening they were compiled again at
each, about a quarter of what a shard cost the registry. Connections are closed when nobody has the registry open any
more.
"""

import os
import threading
from pathlib import Path

from sqlalchemy import URL, Engine

from rlhfblender_core.errors import RegistryNotUsableError
from rlhfblender_core.registry.engine import make_registry_engine, sqlite_file
from rlhfblender_core.untrusted.sqlite_files import journal_fault

#: Engines that are kept, with what they have compiled, though nobody uses them.
_KEPT = 4

#: Process, URL, and which file is there. A process that was forked must not touch its parent's connections; and those
#: to a file that was deleted since are no way to the one in its place.
_Key = tuple[int, URL, tuple[int, int] | None]

_lock = threading.Lock()
#: Those that were used last are last.
_engines: dict[_Key, Engine] = {}
_users: dict[_Key, int] = {}


def borrow_engine(url: URL) -> Engine:
    """The engine of a URL, to be given back by :func:`give_back`.

    Raises:
        RegistryNotUsableError: the database's driver isn't installed, or SQLite would do more than open the file.
    """
    file = sqlite_file(url)
    fault = None if file is None else journal_fault(file)
    if fault is not None:
        raise RegistryNotUsableError(
            f"The registry {file} isn't opened: {fault}. If you don't know whose it is, move it away; "
            "`python flows/verify.py --repair` fills a new one from the manifests."
        )
    identity = _identity(file)
    if url.drivername == "sqlite" and identity is None:  # in memory, or about to be made
        return make_registry_engine(url)
    key = os.getpid(), url, identity
    with _lock:
        engine = _engines.pop(key, None) or make_registry_engine(url)
        _engines[key] = engine
        _users[key] = _users.get(key, 0) + 1
        idle = [other for other in _engines if other not in _users]
        for other in idle[:-_KEPT]:
            del _engines[other]
    return engine


def give_back(engine: Engine) -> None:
    """Closes the engine's connections, unless others have borrowed it, too."""
    with _lock:
        key = next((key for key, each in _engines.items() if each is engine), None)
        if key is not None:
            _users[key] -= 1
            if _users[key]:
                return
            del _users[key]
        engine.dispose()


def _identity(file: Path | None) -> tuple[int, int] | None:
    try:
        status = None if file is None else file.stat()
    except OSError:  # opening it says what is wrong with it
        return None
    return None if status is None else (status.st_dev, status.st_ino)
