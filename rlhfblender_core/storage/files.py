"""Publishing and removing files below a data root.

Files appear complete or not at all. On a local disk: written elsewhere on the same disk, flushed, moved. On object
storage: one PUT, which is atomic. What the paths mean is in :mod:`rlhfblender_core.dataset.layout`.
"""

import contextlib
import os
import shutil
import socket
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlhfblender_core.errors import StorageNotUsableError
from rlhfblender_core.storage.failures import storage_errors
from rlhfblender_core.storage.objects import remove_objects, upload_contents, upload_files
from rlhfblender_core.storage.root import DataRoot

#: Files that are flushed side by side: the disk commits them together, 10 times as fast as one after another.
_FLUSHERS = 16
#: Part of unfinished files' names: another machine's processes can't be asked whether they live.
_MACHINE = socket.gethostname().replace(".", "-")


def publish_files(root: DataRoot, files: Mapping[str, Path]) -> None:
    """Moves local files to their paths below the root, each complete or not at all, all of them durable on return.

    Args:
        root: the data root.
        files: local file by path, gone afterwards. On a local root they must lie on the same disk.

    Raises:
        StorageNotUsableError: no space, no permission.
        StorageUnavailableError: worth another try; files already moved are skipped then.
    """
    if not root.is_local:
        upload_files(root, files)
        return
    with storage_errors(root):
        _move_all(root, files)


def _move_all(root: DataRoot, files: Mapping[str, Path]) -> None:
    moves = {}
    for path, local in files.items():
        target = root.local_folder / path
        if local.exists():
            moves[local] = target
        elif not target.exists():  # else moved by an earlier try
            raise StorageNotUsableError(f"{local} is gone: was the data root unmounted? Run the same command again.")
    folders = {target.parent for target in moves.values()}
    check_no_links(root, folders)
    for folder in folders:
        make_folder(folder)
    _sync_all(moves)
    for local, target in moves.items():
        if target.is_dir():
            _unlink_all([target])
        local.replace(target)
    _sync_all(folders)


def publish_many_bytes(root: DataRoot, contents: Mapping[str, bytes]) -> None:
    """Writes small files by path, each complete or not at all, all of them durable on return."""
    if not root.is_local:
        upload_contents(root, contents)
        return
    folders = {(root.local_folder / path).parent for path in contents}
    with storage_errors(root):
        check_no_links(root, folders)
        for folder in folders:
            _remove_parts_of_the_dead(folder)
        for path, content in contents.items():
            _write_local(root.local_folder / path, content)
        _sync_all(folders)


def publish_bytes(root: DataRoot, path: str, content: bytes) -> None:
    """Writes one small file, see :func:`publish_many_bytes`."""
    publish_many_bytes(root, {path: content})


def _write_local(target: Path, content: bytes) -> None:
    make_folder(target.parent)
    part = target.with_name(f".{target.name}.{_MACHINE}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _remove_parts_of_the_dead(folder: Path) -> None:
    """Removes the unfinished files of this machine's killed processes."""
    for part in folder.glob(f".*.{_MACHINE}.*.part"):
        number = part.name.split(".")[-2]
        if number.isdigit() and not _is_alive(int(number)):
            part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    if os.name != "posix":  # there is no such question: the signal would be sent
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def remove_files(root: DataRoot, paths: Iterable[str]) -> None:
    """Removes files, durably; those that aren't there are fine."""
    if not root.is_local:
        remove_objects(root, paths)
        return
    paths = list(paths)
    with storage_errors(root):
        check_no_links(root, {root.local_folder / folder for folder in {path.rpartition("/")[0] for path in paths}})
        _unlink_all(root.local_folder / path for path in paths)


def check_no_links(root: DataRoot, folders: Iterable[Path]) -> None:
    """Makes sure that these folders lie in a local root, there or not, and not behind a link in it.

    Raises:
        StorageNotUsableError: one doesn't. The root may be somebody's, who chose where its links lead.
    """
    top = root.local_folder
    real = Path(os.path.realpath(top))
    for folder in folders:
        if Path(os.path.realpath(folder)) != real / folder.relative_to(top):
            below = (each for each in [*reversed(folder.parents), folder] if top in each.parents)
            link = next((each for each in below if each.is_symlink()), folder)
            raise StorageNotUsableError(
                f"{link} is a link to {os.path.realpath(link)}, and nothing is written or removed behind one. Move "
                "what is there to the link's place, or the link away."
            )


def _unlink_all(files: Iterable[Path]) -> None:
    folders = set()
    for file in files:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if file.is_dir() and not file.is_symlink():
                file.rmdir()  # an empty folder in a file's place is nothing to keep; one with files is refused
            else:
                file.unlink()
            folders.add(file.parent)
    for folder in folders:  # what comes after must not survive a power cut that this doesn't
        with contextlib.suppress(FileNotFoundError):
            _sync(folder)


def remove_tree(folder: Path) -> None:
    """Removes a local folder with all in it; one that isn't there is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def sync_tree(place: Path) -> None:
    """Makes a local file, or a folder with all in it, durable."""
    _sync_all([place, *(place.rglob("*") if place.is_dir() else ())])


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, durably: a power cut must not take the name of a file that was synced."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync_all(paths: Collection[Path]) -> None:
    with ThreadPoolExecutor(max(1, min(_FLUSHERS, len(paths)))) as pool:
        list(pool.map(_sync, paths))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
