"""Reading and listing files below a data root. What the paths mean is in :mod:`rlhfblender_core.dataset.layout`."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rlhfblender_core.errors import StorageNotUsableError
from rlhfblender_core.storage.failures import cause_of, storage_errors
from rlhfblender_core.storage.objects import object_sizes, read_objects, side_by_side
from rlhfblender_core.storage.root import DataRoot

#: A manifest has some 10 kB; at most so many are read of one (:mod:`rlhfblender_core.untrusted.limits`).
SMALL_BYTES = 2**22
#: Pictures, and the arrays of very long episodes.
LARGE_BYTES = 2**26
#: Nothing there: no such file, one where a folder should be, a link to itself.
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
A = TypeVar("A")
R = TypeVar("R")

#: Bits of a mode that tell what it is the mode of.
_KIND = stat.S_IFMT(0o777777)


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


def read_many(root: DataRoot, paths: Iterable[str], *, most: int = SMALL_BYTES) -> dict[str, bytes]:
    """The contents of those files that exist, by path; fetched side by side from object storage.

    Args:
        root: the data root.
        paths: of files below it.
        most: bytes that one of them has. What has more is taken for empty, and so for damaged: a file of somebody's
            with a terabyte of holes weighs nothing.
    """
    if not root.is_local:
        return read_objects(root, paths, most)
    contents = {}
    with storage_errors(root):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                content = _read_local(root.local_folder / path, most)
                if content is not None:
                    contents[path] = content
    return contents


def _read_local(file: Path, most: int) -> bytes | None:
    """The content of a file; of what is none, None."""
    try:
        status = file.stat()
        if not _is_file(status):
            return None
        return file.read_bytes() if status.st_size <= most else b""
    except OSError as error:
        error.filename = str(file)  # not said of what fails when it is read
        raise


def _is_file(status: os.stat_result) -> bool:
    """Not a folder, and nothing that never ends when it is read (a pipe, a link to a device)."""
    return stat.S_ISREG(status.st_mode)


def read_each(root: DataRoot, paths: Sequence[str]) -> dict[str, bytes | str]:
    """Like :func:`read_many`; for a file that is there and can't be read, the end of a line that says why."""
    try:
        return dict(read_many(root, paths))
    except StorageNotUsableError:
        contents: dict[str, bytes | str] = {}
        for path in paths:
            try:
                contents |= read_many(root, [path])
            except StorageNotUsableError as error:
                contents[path] = f"can't be read: {cause_of(error)}"
        return contents


@dataclass(frozen=True)
class Entries:
    """What lies right in a folder.

    Attributes:
        sizes: in bytes of the files, by name.
        folders: names, sorted.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    folders: tuple[str, ...] = ()


def list_entries(root: DataRoot, folder: str) -> Entries:
    """What lies right in a folder; nothing if there is no such folder."""
    sizes, folders = {}, []
    for name, size in each_entry(root, folder):
        if size is None:
            folders.append(name)
        else:
            sizes[name] = size
    return Entries(sizes, tuple(sorted(folders)))


def each_entry(root: DataRoot, folder: str) -> Iterator[tuple[str, int | None]]:
    """Name and bytes of each file right in a folder, of a folder None; in any order, as they are found.

    On a local disk memory doesn't grow with their number. Nothing if there is no such folder.
    """
    if root.is_local:
        yield from _each_local(root, root.local_folder / folder)
        return
    with storage_errors(root):
        try:
            entries = root.fs.ls(root.full_path(folder), detail=True, refresh=True)
        except FileNotFoundError:
            return
    # Some servers, and people who make folders in a bucket, keep an empty object "folder/" in the folder.
    for entry in entries:
        if entry["type"] == "directory":
            yield entry["name"].rstrip("/").rpartition("/")[2], None
        elif entry["type"] == "file" and not entry["name"].endswith("/"):
            yield entry["name"].rpartition("/")[2], int(entry["size"])


def each_listed(root: DataRoot, listed: Callable[[A], R], folders: Iterable[A]) -> Iterator[R]:
    """What a function that lists gives for each of the folders, in order; asked for side by side on object storage."""
    return map(listed, folders) if root.is_local else iter(side_by_side(listed, folders))


def list_sizes(root: DataRoot, folder: str) -> Mapping[str, int]:
    """Sizes in bytes of the files right in a folder, by name; empty if there is no such folder."""
    return list_entries(root, folder).sizes


def sizes_of(root: DataRoot, paths: Iterable[str]) -> dict[str, int]:
    """Sizes in bytes of those files that exist, by path: a request each on object storage, so for a few of many."""
    if not root.is_local:
        return object_sizes(root, paths)
    sizes = {}
    with storage_errors(root):
        for path in paths:
            size = size_of(root.local_folder / path)
            if size is not None:
                sizes[path] = size
    return sizes


def list_names(root: DataRoot, folder: str) -> Iterator[str]:
    """Names of the files right in a folder, in any order, as they are found; nothing if there is no such folder.

    On a local disk no file is asked for its size, and memory doesn't grow with their number.
    """
    if not root.is_local:
        yield from list_sizes(root, folder)
        return
    with (
        storage_errors(root),
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(root.local_folder / folder) as entries,
    ):
        yield from (entry.name for entry in entries if _is_regular(entry))


def _is_regular(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return False


def size_of(file: Path) -> int | None:
    """Bytes of a local file; None where there is none, or a link that leads nowhere."""
    try:
        status = os.stat(file)  # noqa: PTH116 (asked a million times; half the time of Path's)
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return None
    return status.st_size if _is_file(status) else None


def list_folders(root: DataRoot, folder: str) -> list[str]:
    """Names of the folders right in a folder, sorted; empty if there is no such folder."""
    return list(list_entries(root, folder).folders)


def _each_local(root: DataRoot, folder: Path) -> Iterator[tuple[str, int | None]]:
    with storage_errors(root), contextlib.suppress(FileNotFoundError, NotADirectoryError), _scanned(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat()
            except FileNotFoundError:  # another run's temporary file, which has its name by now
                continue
            except OSError as error:
                if error.errno == errno.ELOOP:  # a link that leads nowhere is no file
                    continue
                error.filename = str(folder / entry.name)
                raise
            kind = status.st_mode & _KIND  # (a call for each file would be a tenth of the time)
            if kind == stat.S_IFREG:
                yield entry.name, status.st_size
            elif kind == stat.S_IFDIR:
                yield entry.name, None


@contextlib.contextmanager
def _scanned(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    """The folder's entries; where it can be, the system looks their sizes up in the open folder, a fifth faster."""
    if os.scandir not in os.supports_fd:
        with os.scandir(folder) as entries:
            yield entries
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(opened) as entries:
            yield entries
    finally:
        os.close(opened)


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
