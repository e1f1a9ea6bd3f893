"""Runs that are under way: each has a folder of its own for unfinished files, and a lock that dies with it.

On a local data root the folder lies inside it, so that finished files can be moved to their places; on object
storage in the machine's temporary folder. A folder whose lock can be had belongs to a run that is dead, and is removed.
"""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from rlhfblender_core.layout import RUNS
from rlhfblender_core.storage import DataRoot, make_folder, remove_tree, storage_errors

_LOCK = "lock"
_NEW = ".new-"
#: A folder that got no further than its first name for this long is dead too, in seconds.
_NEW_FOR = 3600.0


@contextlib.contextmanager
def open_run(root: DataRoot) -> Iterator[Path]:
    """A new folder for this run's unfinished files; dead runs' folders are removed, this one too in the end."""
    base = runs_folder(root)
    name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    with storage_errors(root):
        remove_dead_runs(base)
        new = base / f"{_NEW}{name}"
        make_folder(new)
        lock = FileLock(new / _LOCK)
        lock.acquire(timeout=0)
        # Locked before it has the name by which other runs judge it.
        folder = new.rename(base / name)
    try:
        yield folder
    finally:
        lock.release()
        remove_tree(folder)
        with contextlib.suppress(OSError):  # other runs are under way
            base.rmdir()


def runs_folder(root: DataRoot) -> Path:
    """Where runs on this machine keep unfinished files for that data root."""
    if root.is_local:
        return root.local_folder / RUNS
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"rlhfblender-{user}"


def remove_dead_runs(base: Path) -> None:
    """Removes the folders of runs that ended without removing them."""
    for folder in sorted(base.iterdir()) if base.is_dir() else []:
        if folder.name.startswith(_NEW):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > _NEW_FOR:
                    remove_tree(folder)
        elif not is_alive(folder):
            remove_tree(folder)


def other_live_runs(own_folder: Path) -> list[Path]:
    """Folders of the other runs that are under way on this data root."""
    others = [folder for folder in own_folder.parent.iterdir() if folder != own_folder]
    return [folder for folder in others if folder.name.startswith(_NEW) or is_alive(folder)]


def is_alive(folder: Path) -> bool:
    """Whether the process that made the folder still holds its lock."""
    lock = FileLock(folder / _LOCK)
    if not folder.is_dir():
        return False
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
