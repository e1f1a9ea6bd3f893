"""Runs that are under way: each has a folder of its own for unfinished files, and a lock that dies with it.

On a local data root the folder lies inside it, so that finished files can be moved to their places; on object
storage in the machine's temporary folder, where also lies what no data set keeps (:func:`open_scratch`). A folder whose
lock can be had belongs to a run that is dead, and is removed. What runs tell each other is in
:mod:`rlhfblender_core.runs.claims`.
"""

import contextlib
import os
import re
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.storage import (
    DataRoot,
    full_disk_errors,
    make_folder,
    remove_tree,
    storage_errors,
)

_LOCK = "lock"
_NEW = ".new-"
_OWN = re.compile(rf"({re.escape(_NEW)})?\d{{20}}-\d+-[0-9a-f]{{8}}")
#: A folder that got no further than its first name is dead after so many seconds; that it is locked is judged sooner,
#: but not in the moment between making and locking it.
_NEW_FOR, _UNLOCKED_FOR = 3600.0, 5.0
_TRIES = 100


@dataclass(frozen=True)
class Run:
    """A run that is under way.

    Attributes:
        folder: for its unfinished files.
    """

    folder: Path

    @property
    def name(self) -> str:
        """By which the registry knows the run."""
        return self.folder.name


@contextlib.contextmanager
def open_run(root: DataRoot) -> Iterator[Run]:
    """A run with a new folder; dead runs' folders are removed, this one too in the end.

    Args:
        root: the data root.

    Raises:
        StorageNotUsableError, StorageUnavailableError: the data root can't be written.
    """
    base = runs_folder(root)
    with storage_errors(root):
        remove_dead_runs(base)
        new, lock = _make_locked_folder(base)
        # Locked before it has the name by which other runs judge it.
        folder = _named(new)
    try:
        yield Run(folder)
    finally:
        _discard(folder, lock)


@contextlib.contextmanager
def open_scratch(base: Path | None = None) -> Iterator[Path]:
    """A new folder on this machine for what nobody needs later, like :func:`open_run`: no kill leaves it for long.

    Args:
        base: what it is made in; None for the machine's temporary folder.

    Raises:
        StorageNotUsableError: the temporary folder is full.
    """
    base = base or machine_folder()
    with full_disk_errors(base):
        remove_dead_runs(base)
        new, lock = _make_locked_folder(base)
        folder = _named(new)
    try:
        yield folder
    finally:
        _discard(folder, lock)


def _make_locked_folder(base: Path) -> tuple[Path, FileLock]:
    # Sorted by name, runs are sorted by when they started.
    new = base / f"{_NEW}{time.time_ns():020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    _make_below(base, new)
    lock = FileLock(new / _LOCK, thread_local=False)  # garbage collection lets go of it in any thread
    lock.acquire(timeout=1)
    return new, lock


def _named(new: Path) -> Path:
    return new.rename(new.with_name(new.name.removeprefix(_NEW)))


def _discard(folder: Path, lock: FileLock) -> None:
    lock.release()
    remove_tree(folder)
    with contextlib.suppress(OSError):
        remove_dead_runs(folder.parent)


def _make_below(base: Path, folder: Path) -> None:
    for _ in range(_TRIES):
        # The last other run ended meanwhile, and removed the folder above (mkdir then says either).
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            make_folder(base)
            folder.mkdir()
            return
    make_folder(folder)


def remove_unfinished(root: DataRoot) -> None:
    """Removes the folders of this machine's dead runs. What they had published by halves is known by their claims.

    Those in the machine's temporary folder, too: a run that had made everything when it was killed may leave one, and
    the next one, which finds nothing to do, makes none there and so would never look.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    with storage_errors(root):
        remove_dead_runs(runs_folder(root))
    with contextlib.suppress(OSError):
        remove_dead_runs(machine_folder())


def is_any_alive(root: DataRoot) -> bool:
    """Whether a run is under way on this machine that keeps its unfinished files where this data root's do."""
    with storage_errors(root):
        return any(_may_be_alive(folder) for folder in _folders(runs_folder(root)))


def runs_folder(root: DataRoot) -> Path:
    """Where runs on this machine keep unfinished files for that data root."""
    return root.local_folder / RUNS if root.is_local else machine_folder()


def machine_folder() -> Path:
    """Where runs on this machine keep what must not lie on the data root, those of the user whose rights they have."""
    user = os.geteuid() if hasattr(os, "geteuid") else "user"
    return Path(tempfile.gettempdir()) / f"rlhfblender-{user}"


def remove_dead_runs(base: Path) -> None:
    """Removes the folders of runs that ended without removing them, and the folder above where nothing is left."""
    for folder in _folders(base):
        if not _may_be_alive(folder):
            remove_tree(folder)
    with contextlib.suppress(OSError):  # other runs are under way
        base.rmdir()


def _folders(base: Path) -> list[Path]:
    """Folders that runs made: a data root from somebody else may hold anything there, and links to anywhere."""
    try:
        return sorted(folder for folder in base.iterdir() if _OWN.fullmatch(folder.name))
    except FileNotFoundError:
        return []


def _may_be_alive(folder: Path) -> bool:
    """Whether the folder is a live run's, or one of a run that starts just now."""
    if not folder.name.startswith(_NEW):
        return is_alive(folder)
    try:
        age = time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return False
    if age < _UNLOCKED_FOR:
        return True
    return is_alive(folder) if (folder / _LOCK).exists() else age < _NEW_FOR


def is_alive(folder: Path) -> bool:
    """Whether the process that made the folder still holds its lock; another user's is not ours to judge: it does."""
    try:
        if not (folder / _LOCK).is_file():
            return False
        with FileLock(folder / _LOCK).acquire(timeout=0):
            return False
    except (Timeout, PermissionError):
        return True
    except (FileNotFoundError, FileExistsError):  # removed meanwhile: to take a lock makes its folder, and says either
        return False
