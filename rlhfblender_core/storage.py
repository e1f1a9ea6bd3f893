"""The data root: one fsspec file system and the folder in it below which everything lies.

Files appear complete or not at all. On a local disk: written elsewhere on the same disk, flushed, moved. On object
storage: one PUT, which is atomic. What the paths mean is in :mod:`rlhfblender_core.layout`.
"""

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from fsspec.utils import get_protocol, stringify_path

from rlhfblender_core.errors import StorageNotUsableError, StorageUnavailableError

_LOCAL_PROTOCOLS = ("file", "local")
#: Which extra of this project brings a protocol.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# EEXIST: a file where a folder should be.
_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP),
)


@dataclass(frozen=True)
class DataRoot:
    """A folder on any fsspec file system.

    Args:
        url: ``data``, ``/mnt/share/data``, ``s3://bucket/prefix`` …
        options: for fsspec (keys, endpoints); kept out of messages and ``repr``.
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_local(self) -> bool:
        """Whether files can be moved into it by renaming."""
        return get_protocol(self.url) in _LOCAL_PROTOCOLS

    @property
    def local_folder(self) -> Path:
        """The absolute folder of a local root."""
        if not self.is_local:
            raise ValueError(f"{self.url} is not a local folder")
        return Path(str(fsspec.core.strip_protocol(self.url))).absolute()

    @cached_property
    def fs(self) -> Any:
        """The file system.

        Raises:
            StorageNotUsableError: no such protocol, or its package is missing.
        """
        protocol = get_protocol(self.url)
        try:
            # Listings of other runs' files must not come from a cache.
            return fsspec.filesystem(protocol, **{"use_listings_cache": False, **self.options})
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            fix = f"Install it: pip install 'rlhfblender-data[{extra}]'." if extra else f"({error})"
            raise StorageNotUsableError(f"The data root {self.url} needs a package that is missing. {fix}") from error
        except ValueError as error:
            raise StorageNotUsableError(
                f"The data root {self.url} has the unknown protocol {protocol!r}. Use a folder, s3://, gs:// or az://."
            ) from error

    @cached_property
    def _prefix(self) -> str:
        if self.is_local:
            return str(self.local_folder)
        return str(self.fs._strip_protocol(stringify_path(self.url))).rstrip("/")  # noqa: SLF001 (fsspec's own name for it)

    def __getstate__(self) -> dict[str, Any]:
        """Without open connections: workers open their own."""
        return {"url": self.url, "options": dict(self.options)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def full_path(self, path: str) -> str:
        """The file system's own path for one below the root."""
        return f"{self._prefix}/{path}"

    def shown(self, path: str) -> str:
        """The path as a person would use it."""
        return self.full_path(path) if self.is_local else f"{self.url.rstrip('/')}/{path}"


def open_data_root(url: str, options: Mapping[str, Any] | None = None) -> DataRoot:
    """The data root of a URL, its protocol checked; nothing is written or read yet.

    Raises:
        StorageNotUsableError: the URL has no known protocol or its package is missing.
    """
    if not url.strip():
        raise StorageNotUsableError("The data root is empty. Give a folder or a URL like s3://bucket/prefix.")
    root = DataRoot(url, dict(options or {}))
    _ = root.fs
    return root


@contextlib.contextmanager
def storage_errors(root: DataRoot) -> Iterator[None]:
    """Turns what file systems raise into our errors; the one place that tells permanent from passing."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise translated(root, error) from error
    except Exception as error:
        if _is_passing(error):
            raise StorageUnavailableError(f"{root.url} did not answer properly: {_text(error)}") from error
        raise


def translated(root: DataRoot, error: OSError) -> StorageNotUsableError | StorageUnavailableError:
    """Our error for an operating system's."""
    if error.errno in _DISK_FULL:
        return StorageNotUsableError(f"The disk of {root.url} is full. Free some space and run the same command again.")
    if isinstance(error, PermissionError) or error.errno in _REFUSED:
        return StorageNotUsableError(
            f"The data root {root.url} can't be used: {_text(error)}. Check the path and its permissions, or give "
            "another with --data-root."
        )
    return StorageUnavailableError(f"{root.url} did not answer properly: {_text(error)}")


@contextlib.contextmanager
def full_disk_errors() -> Iterator[None]:
    """Turns "no space left" into our error, where files are written outside the data root; other errors stay."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise StorageNotUsableError(
            f"The disk is full ({_text(error)}). Free some space and run the same command again."
        ) from error


def _is_passing(error: Exception) -> bool:
    """Whether it comes from a network client: those that aren't OSErrors are time-outs, resets and bad answers."""
    module = type(error).__module__.partition(".")[0]
    return module in {"aiohttp", "botocore", "aiobotocore", "urllib3", "requests", "azure", "gcsfs", "google"}


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}" + (f": {error.filename}" if error.filename else "")
    return " ".join(str(error).split()) or type(error).__name__


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
        with tempfile.TemporaryFile(dir=folder) as probe:  # has no name where the system can do that
            probe.write(b"x")


def read_bytes(root: DataRoot, path: str) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is none.
    """
    with storage_errors(root):
        content: bytes = root.fs.cat_file(root.full_path(path))
        return content


def read_many(root: DataRoot, paths: Iterable[str]) -> dict[str, bytes]:
    """The contents of those files that exist, by path; fetched side by side where the file system can."""
    by_full = {root.full_path(path): path for path in paths}
    if not by_full:
        return {}
    if root.is_local:
        return {path: Path(full).read_bytes() for full, path in by_full.items() if Path(full).exists()}
    with storage_errors(root):
        found = root.fs.cat(list(by_full), on_error="return")
        contents = {}
        for full, content in found.items():
            if isinstance(content, FileNotFoundError):
                continue
            if isinstance(content, Exception):
                raise content
            contents[by_full[full]] = content
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
        return {entry["name"].rpartition("/")[2]: int(entry["size"]) for entry in entries if entry["type"] == "file"}


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
    with storage_errors(root):
        moment: datetime = root.fs.modified(root.full_path(path))
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def publish_files(root: DataRoot, files: Mapping[str, Path]) -> None:
    """Moves local files to their paths below the root, each complete or not at all, all of them durable on return.

    Args:
        root: the data root.
        files: local file by path. On a local root they must lie on the same disk; they are gone afterwards.

    Raises:
        StorageNotUsableError: no space, no permission.
        StorageUnavailableError: worth another try; files already moved are skipped then.
    """
    with storage_errors(root):
        if root.is_local:
            _move_all(root, files)
        else:
            _upload_all(root, files)


def _upload_all(root: DataRoot, files: Mapping[str, Path]) -> None:
    """Uploads each file with one PUT, side by side."""
    uploads = {str(local): root.full_path(path) for path, local in files.items() if local.exists()}
    for path, local in files.items():
        if str(local) not in uploads and not root.fs.exists(root.full_path(path)):
            raise StorageUnavailableError(f"{local} is gone before {root.shown(path)} was written. Run it again.")
    try:
        if uploads:
            root.fs.put(list(uploads), list(uploads.values()))
    except FileNotFoundError as error:
        raise StorageNotUsableError(f"There is no bucket for {root.url}. Create it, or check --data-root.") from error


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
    with storage_errors(root):
        if not root.is_local:
            if contents:
                root.fs.pipe({root.full_path(path): content for path, content in contents.items()})
            return
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
    with storage_errors(root):
        for path in paths:
            if root.is_local:
                (root.local_folder / path).unlink(missing_ok=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    root.fs.rm_file(root.full_path(path))


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
