"""Reading, listing, publishing and removing files below a data root.

Files appear complete or not at all. On a local disk: written elsewhere on the same disk, flushed, moved. On object
storage: one PUT, which is atomic. What the paths mean is in :mod:`rlhfblender_core.layout`.
"""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rlhfblender_core.storage.failures import storage_errors
from rlhfblender_core.storage.objects import (
    read_objects,
    remove_objects,
    times_of_objects,
    upload_contents,
    upload_files,
)
from rlhfblender_core.storage.root import DataRoot


def check_writable(root: DataRoot) -> None:
    """Makes sure that a local root can be written; leaves nothing behind.

    Object storage is asked nothing: its first PUT tells.

    Raises:
        StorageNotUsableError: the folder, or the first existing one above it, can't be written.
    """
    if not root.is_local:
        return
    folder = root.local_folder
    with storage_errors(root):
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        try:
            with tempfile.TemporaryFile(dir=folder) as probe:  # has no name where the system can do that
                probe.write(b"x")
        except FileNotFoundError as error:  # /proc and the like take no files
            raise PermissionError(errno.EACCES, "No file can be made in", str(folder)) from error


def read_bytes(root: DataRoot, path: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is none.
    """
    with storage_errors(root):
        content: bytes = root.fs.cat_file(root.full_path(path))
        return content


def read_many(root: DataRoot, paths: Iterable[str]) -> dict[str, bytes]:
    """The contents of those files that exist, by path; fetched side by side from object storage."""
    if not root.is_local:
        return read_objects(root, paths)
    contents = {}
    with storage_errors(root):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                contents[path] = (root.local_folder / path).read_bytes()
    return contents


def list_sizes(root: DataRoot, folder: str) -> dict[str, int]:
    """Sizes in bytes of the files right in a folder, by name; empty if there is no such folder."""
    if root.is_local:
        return _list_local(root, root.local_folder / folder)
    with storage_errors(root):
        try:
            entries = root.fs.ls(root.full_path(folder), detail=True, refresh=True)
        except FileNotFoundError:
            return {}
        names = {entry["name"]: int(entry["size"]) for entry in entries if entry["type"] == "file"}
    # Some servers, and people who make folders in a bucket, keep an empty object "folder/" in the folder.
    return {name.rpartition("/")[2]: size for name, size in names.items() if not name.endswith("/")}


def _list_local(root: DataRoot, folder: Path) -> dict[str, int]:
    with storage_errors(root):
        try:
            files = list(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        sizes = {}
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # another run's temporary file, which has its name by now
                status = file.stat()
                if stat.S_ISREG(status.st_mode):
                    sizes[file.name] = status.st_size
        return sizes


def list_folders(root: DataRoot, folder: str) -> list[str]:
    """Names of the folders right in a folder, sorted; empty if there is no such folder."""
    with storage_errors(root):
        try:
            entries = root.fs.ls(root.full_path(folder), detail=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == "directory")


def fetch_file(root: DataRoot, path: str, folder: Path) -> Path:
    """A published file on this machine: itself on a local root, else a copy in the folder.

    Raises:
        FileNotFoundError: there is none.
    """
    if root.is_local:
        return root.local_folder / path
    target = folder / path.replace("/", "-")
    with storage_errors(root):
        root.fs.get_file(root.full_path(path), str(target))
    return target


def modified_at(root: DataRoot, path: str) -> datetime:
    """When a file was last written, by the storage's clock, in UTC.

    Raises:
        FileNotFoundError: there is none.
    """
    times = modified_times(root, [path])
    if path not in times:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), root.shown(path))
    return times[path]


def modified_times(root: DataRoot, paths: Iterable[str]) -> dict[str, datetime]:
    """When those files that exist were last written, by path; by the storage's clock, in UTC."""
    return {
        path: moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        for path, moment in times_of_objects(root, paths).items()
    }


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
    folders = set()
    for path, local in files.items():
        target = root.local_folder / path
        if not local.exists() and target.exists():  # moved by an earlier try
            continue
        _sync(local)
        if target.parent not in folders:
            make_folder(target.parent)
            folders.add(target.parent)
        local.replace(target)
    for folder in folders:
        _sync(folder)


def publish_many_bytes(root: DataRoot, contents: Mapping[str, bytes]) -> None:
    """Writes small files by path, each complete or not at all, all of them durable on return."""
    if not root.is_local:
        upload_contents(root, contents)
        return
    with storage_errors(root):
        for path, content in contents.items():
            _write_local(root.local_folder / path, content)
        for folder in {(root.local_folder / path).parent for path in contents}:
            _sync(folder)


def publish_bytes(root: DataRoot, path: str, content: bytes) -> None:
    """Writes one small file, see :func:`publish_many_bytes`."""
    publish_many_bytes(root, {path: content})


def _write_local(target: Path, content: bytes) -> None:
    make_folder(target.parent)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def remove_files(root: DataRoot, paths: Iterable[str]) -> None:
    """Removes files; those that aren't there are fine."""
    if not root.is_local:
        remove_objects(root, paths)
        return
    with storage_errors(root):
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                (root.local_folder / path).unlink()


def remove_tree(folder: Path) -> None:
    """Removes a local folder with all in it; one that isn't there is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it, durably: a power cut must not take the name of a file that was synced."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
