"""Runs that are under way: each has a folder of its own for unfinished files, and a lock that dies with it.

On a local data root the folder lies inside it, so that finished files can be moved to their places; on object
storage in the machine's temporary folder. A folder whose lock can be had belongs to a run that is dead, and is removed.
Runs on other machines are known by their markers, see :mod:`rlhfblender_core.markers`.
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
from rlhfblender_core.markers import keep_marker, live_markers
from rlhfblender_core.storage import DataRoot, make_folder, remove_tree, storage_errors

try:
    import fcntl
except ImportError:  # Windows: starting runs don't wait for one that cleans up
    fcntl = None  # type: ignore[assignment]

_LOCK = "lock"
_EXPERIMENT = "experiment"
_NEW = ".new-"
#: A folder that got no further than its first name for this long is dead too, in seconds.
_NEW_FOR = 3600.0
_TRIES = 100


@contextlib.contextmanager
def open_run(root: DataRoot, experiment: str | None = None) -> Iterator[Path]:
    """A new folder for this run's unfinished files; dead runs' folders are removed, this one too in the end.

    Args:
        root: the data root.
        experiment: whose files the run publishes; None where that isn't known, which counts as any.

    Raises:
        StorageNotUsableError, StorageUnavailableError: the data root can't be written.
    """
    base = runs_folder(root)
    # Sorted by name, runs are sorted by when they started.
    name = f"{time.time_ns():020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    with storage_errors(root):
        remove_dead_runs(base)
        folder, lock = _make_run_folder(root, base, name, experiment)
    try:
        with keep_marker(root, experiment, name):
            yield folder
    finally:
        lock.release()
        remove_tree(folder)
        with contextlib.suppress(OSError):
            remove_dead_runs(base)


def _make_run_folder(root: DataRoot, base: Path, name: str, experiment: str | None) -> tuple[Path, FileLock]:
    new = base / f"{_NEW}{name}"
    _make_below(base, new)
    lock = FileLock(new / _LOCK)
    lock.acquire(timeout=0)
    if experiment is not None:
        (new / _EXPERIMENT).write_text(experiment, encoding="utf-8")
    # Locked before it has the name by which other runs judge it.
    with no_run_starting(root):
        return new.rename(base / name), lock


def _make_below(base: Path, folder: Path) -> None:
    for _ in range(_TRIES):
        # The last other run ended meanwhile, and removed the folder above (mkdir then says either).
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            make_folder(base)
            folder.mkdir()
            return
    make_folder(folder)


@contextlib.contextmanager
def no_run_starting(root: DataRoot) -> Iterator[None]:
    """Keeps runs on a local data root from starting, so that what belongs to no run can be told and removed."""
    if not root.is_local or fcntl is None:
        yield
        return
    handle = os.open(root.local_folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a share without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def runs_folder(root: DataRoot) -> Path:
    """Where runs on this machine keep unfinished files for that data root."""
    if root.is_local:
        return root.local_folder / RUNS
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"rlhfblender-{user}"


def remove_dead_runs(base: Path) -> None:
    """Removes the folders of runs that ended without removing them, and the folder above where nothing is left."""
    for folder in _folders(base):
        if folder.name.startswith(_NEW):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > _NEW_FOR:
                    remove_tree(folder)
        elif not is_alive(folder):
            remove_tree(folder)
    with contextlib.suppress(OSError):  # other runs are under way
        base.rmdir()


def live_runs(root: DataRoot, experiment: str) -> list[str]:
    """Names of the runs under way that may publish files of the experiment, those that started first first."""
    base = runs_folder(root)
    if not root.is_local:
        return [name for name in live_markers(root, experiment) if not _died_here(base / name)]
    return [
        folder.name
        for folder in _folders(base)
        if _may_work_on(folder, experiment) and (folder.name.startswith(_NEW) or is_alive(folder))
    ]


def spread(rank: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, …: places as far from each other as can be, for any number of runs (van der Corput)."""
    digits = f"{rank:b}"[::-1]
    return int(digits, 2) / (1 << len(digits))


def other_live_runs(own_folder: Path) -> list[Path]:
    """Folders of the other runs of this machine that are under way beside this one."""
    others = [folder for folder in _folders(own_folder.parent) if folder != own_folder]
    return [folder for folder in others if folder.name.startswith(_NEW) or is_alive(folder)]


def _folders(base: Path) -> list[Path]:
    try:
        return sorted(base.iterdir())
    except FileNotFoundError:
        return []


def _may_work_on(folder: Path, experiment: str) -> bool:
    try:
        return (folder / _EXPERIMENT).read_text(encoding="utf-8") == experiment
    except OSError:  # it doesn't say
        return True


def _died_here(folder: Path) -> bool:
    """Whether the run was one of this machine and was killed. Of other machines' runs only the marker tells."""
    return folder.is_dir() and not is_alive(folder)


def is_alive(folder: Path) -> bool:
    """Whether the process that made the folder still holds its lock."""
    if not (folder / _LOCK).is_file():
        return False
    lock = FileLock(folder / _LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except FileNotFoundError:  # removed meanwhile
        return False
