"""Runs that are under way: each has a folder of its own for unfinished files, and a lock that dies with it.

On a local data root the folder lies inside it, so that finished files can be moved to their places; on object
storage in the machine's temporary folder, where also lies what no data set keeps (:func:`open_scratch`). A folder whose
lock can be had belongs to a run that is dead, and is removed.
Runs on other machines are known by their markers, see :mod:`rlhfblender_core.runs.markers`.
"""

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.runs.markers import EXPIRY_S, keep_marker, live_markers, marker_path, read_markers
from rlhfblender_core.runs.notices import Notice, OwnNotice, parse_notice
from rlhfblender_core.storage import (
    DataRoot,
    full_disk_errors,
    gone,
    make_folder,
    publish_bytes,
    remove_tree,
    storage_errors,
)

try:
    import fcntl
except ImportError:  # Windows: starting runs don't wait for one that cleans up
    fcntl = None  # type: ignore[assignment]

_LOCK = "lock"
_EXPERIMENT = "experiment"
_NOTICE = "notice"
_NEW = ".new-"
#: A folder that got no further than its first name is dead after so many seconds; that it is locked is judged sooner,
#: but not in the moment between making and locking it.
_NEW_FOR, _UNLOCKED_FOR = 3600.0, 5.0
_TRIES = 100


@dataclass(frozen=True)
class Run:
    """A run that is under way.

    Attributes:
        folder: for its unfinished files; its name is the run's.
        notice: what it tells other runs.
    """

    folder: Path
    notice: OwnNotice


@contextlib.contextmanager
def open_run(root: DataRoot, experiment: str | None = None) -> Iterator[Run]:
    """A run with a new folder; dead runs' folders are removed, this one too in the end.

    Args:
        root: the data root.
        experiment: whose files the run publishes; None where that isn't known, which counts as any.

    Raises:
        StorageNotUsableError, StorageUnavailableError: the data root can't be written.
    """
    base = runs_folder(root)
    with storage_errors(root):
        remove_dead_runs(base)
        new, lock = _make_locked_folder(base)
        if experiment is not None:
            (new / _EXPERIMENT).write_text(experiment, encoding="utf-8")
        # Locked before it has the name by which other runs judge it.
        with no_run_starting(root):
            folder = _named(new)
    notice = OwnNotice(partial(_tell, root, experiment, folder))
    try:
        with keep_marker(root, experiment, folder.name, notice), _told_no_longer(notice):
            yield Run(folder, notice)
    finally:
        _discard(folder, lock)


@contextlib.contextmanager
def _told_no_longer(notice: OwnNotice) -> Iterator[None]:
    """Threads of a stopped run that let go of something now must not write where it is being removed."""
    try:
        yield
    finally:
        notice.end()


def _tell(root: DataRoot, experiment: str | None, folder: Path, content: bytes) -> None:
    if root.is_local:
        with storage_errors(root):
            part = folder / f"{_NOTICE}.part"
            try:
                part.write_bytes(content)
            except FileNotFoundError as error:
                raise gone(folder) from error
            part.replace(folder / _NOTICE)
    elif experiment is not None:
        publish_bytes(root, marker_path(experiment, folder.name), content)


@contextlib.contextmanager
def open_scratch() -> Iterator[Path]:
    """A new folder on this machine for what nobody needs later, like :func:`open_run`: no kill leaves it for long.

    Raises:
        StorageNotUsableError: the temporary folder is full.
    """
    base = machine_folder()
    with full_disk_errors():
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
    lock = FileLock(new / _LOCK)
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
    return root.local_folder / RUNS if root.is_local else machine_folder()


def machine_folder() -> Path:
    """Where this user's runs on this machine keep what must not lie on the data root."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"rlhfblender-{user}"


def remove_dead_runs(base: Path) -> None:
    """Removes the folders of runs that ended without removing them, and the folder above where nothing is left."""
    for folder in _folders(base):
        if not _may_be_alive(folder):
            remove_tree(folder)
    with contextlib.suppress(OSError):  # other runs are under way
        base.rmdir()


def live_runs(root: DataRoot, experiment: str, silent_for: float = EXPIRY_S) -> list[str]:
    """Names of the runs under way that may publish files of the experiment, those that started first first.

    Args:
        root: the data root.
        experiment: its name.
        silent_for: seconds after which a run on object storage that hasn't been heard of doesn't count any more.
    """
    base = runs_folder(root)
    if not root.is_local:
        return [name for name in live_markers(root, experiment, silent_for) if not _died_here(base / name)]
    return [folder.name for folder in _started(base) if _may_work_on(folder, experiment) and is_alive(folder)]


def read_notices(root: DataRoot, experiment: str, run: Run | None = None) -> dict[str, Notice]:
    """What runs on the experiment but this one tell, by name; they needn't be alive any more."""
    own = run.folder.name if run else None
    if not root.is_local:
        return {name: parse_notice(content) for name, content in read_markers(root, experiment, own).items()}
    notices = {}
    for folder in _folders(runs_folder(root)):
        if folder.name != own and _may_work_on(folder, experiment):
            with contextlib.suppress(OSError):  # it has told nothing, or is over
                notices[folder.name] = parse_notice((folder / _NOTICE).read_bytes())
    return notices


def spread(rank: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, …: places as far from each other as can be, for any number of runs (van der Corput)."""
    digits = f"{rank:b}"[::-1]
    return int(digits, 2) / (1 << len(digits))


def _folders(base: Path) -> list[Path]:
    try:
        return sorted(base.iterdir())
    except FileNotFoundError:
        return []


def _started(base: Path) -> list[Path]:
    """The folders, once each is locked whose run is alive: in a moment, unless it was killed in that moment."""
    deadline = time.monotonic() + _UNLOCKED_FOR
    while True:
        folders = _folders(base)
        settled = all(is_alive(folder) for folder in folders if folder.name.startswith(_NEW))
        if settled or time.monotonic() > deadline:
            return folders
        time.sleep(0.01)


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
