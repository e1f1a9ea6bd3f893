"""Unknown files, moved out of the way by a person's own wish: nothing of theirs is deleted."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from rlhfblender_core.locations import Locations
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.storage import (
    DataRoot,
    check_no_links,
    fetch_file,
    list_entries,
    make_folder,
    publish_bytes,
    publish_files,
    read_bytes,
    remove_files,
    storage_errors,
)
from rlhfblender_core.verification.checks import Problem, Remedy

QUARANTINE = "quarantine"
_LIST = "list.txt"


def move_to_quarantine(problems: Sequence[Problem], locations: Locations) -> int:
    """Moves unknown files and folders below ``quarantine/<date>/``, where a list names them; says how many.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    root = locations.open_root()
    folder = f"{QUARANTINE}/{datetime.now(UTC).date().isoformat()}"
    paths = sorted({problem.path for problem in problems if problem.remedy is Remedy.QUARANTINE})
    moved = [path for path in paths if _move(root, path, folder)]
    if moved:
        try:
            before = read_bytes(root, f"{folder}/{_LIST}")
        except FileNotFoundError:
            before = b""
        publish_bytes(root, f"{folder}/{_LIST}", before + "".join(f"{path}\n" for path in moved).encode())
    return len(moved)


def _move(root: DataRoot, path: str, folder: str) -> bool:
    target = f"{folder}/{path.rstrip('/')}"
    if not root.is_local:
        return _move_objects(root, path, target)
    with storage_errors(root):
        source, free = root.local_folder / path.rstrip("/"), root.local_folder / target
        if not source.exists() and not source.is_symlink():
            return False  # somebody was faster
        number = 0
        while free.exists() or free.is_symlink():  # of an earlier time on the same day
            number += 1
            free = root.local_folder / f"{target}.{number}"
        check_no_links(root, [source.parent, free.parent])
        make_folder(free.parent)
        source.rename(free)
    return True


def _move_objects(root: DataRoot, path: str, target: str) -> bool:
    """Copies, then removes: object storage knows no renaming."""
    paths = list(_below(root, path)) if path.endswith("/") else [path]
    for each in paths:
        with open_scratch() as folder:
            file = fetch_file(root, each, folder)
            publish_files(root, {target + each.removeprefix(path.rstrip("/")): file})
        remove_files(root, [each])
    return bool(paths)


def _below(root: DataRoot, folder: str) -> Iterator[str]:
    entries = list_entries(root, folder.rstrip("/"))
    yield from (f"{folder}{name}" for name in entries.sizes)
    for name in entries.folders:
        yield from _below(root, f"{folder}{name}/")
