"""Folders of agents as lists of names, on local disks and on any fsspec storage alike."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from rlhfblender_core.errors import (
    CheckpointNotUsableError,
    RLHFBlenderError,
    StorageNotUsableError,
    StorageUnavailableError,
    one_line,
)


@dataclass(frozen=True, slots=True)
class Folder:
    """What is in one folder.

    Attributes:
        path: as its user wrote it, without a slash at the end.
        files: names of the files in it.
        folders: names of the folders in it.
        storage_options: for opening what is in it.
    """

    path: str
    files: frozenset[str]
    folders: frozenset[str]
    storage_options: Mapping[str, Any] | None

    def url(self, name: str) -> str:
        """The path or URL of what is in it."""
        return f"{self.path}/{name}" if self.path != "/" else f"/{name}"

    def subfolder(self, name: str) -> "Folder":
        """A folder in it."""
        return open_folder(self.url(name), self.storage_options)


def open_folder(path: str, storage_options: Mapping[str, Any] | None = None) -> Folder:
    """The names in a folder.

    Raises:
        CheckpointNotUsableError: there is no such folder.
        StorageNotUsableError: the URL's storage can't be used.
        StorageUnavailableError: it doesn't answer.
    """
    with storage_errors(path):
        filesystem, inner = open_filesystem(path, storage_options)
        entries = _entries(filesystem, inner, path)
    # Object storage may list the folder's own marker as an entry of it.
    own = inner.strip("/")
    names = [
        (str(entry["name"]).rstrip("/").rpartition("/")[2], entry["type"])
        for entry in entries
        if str(entry["name"]).strip("/") != own
    ]
    return Folder(
        path=path.rstrip("/") or "/",
        files=frozenset(name for name, kind in names if kind != "directory" and name),
        folders=frozenset(name for name, kind in names if kind == "directory" and name),
        storage_options=storage_options,
    )


def open_filesystem(url: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path in it; plain paths are local, ``~`` is the home folder."""
    if "://" not in url and "::" not in url:
        filesystem, inner = fsspec.core.url_to_fs(str(Path(url).expanduser()), **(storage_options or {}))
    else:
        # A listing that was kept hides the checkpoints that a training run has saved since.
        options = {"use_listings_cache": False, **(storage_options or {})}
        filesystem, inner = fsspec.core.url_to_fs(url, **options)
    return filesystem, str(inner)


def is_local(url: str) -> bool:
    """Whether the URL is a file on this machine."""
    return "://" not in url or url.startswith(("file://", "local://"))


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns what storage libraries raise into the project's errors.

    Raises:
        CheckpointNotUsableError: there is nothing at the URL.
        StorageNotUsableError: the protocol is unknown, needs a package, or refuses these credentials.
        StorageUnavailableError: anything that may work on another try.
    """
    try:
        yield
    except RLHFBlenderError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointNotUsableError(f"There is nothing at {url!r}. Check the path of the model.") from error
    except (ImportError, ValueError, PermissionError) as error:
        raise StorageNotUsableError(f"{url!r} can't be opened: {one_line(error)[:200]}.") from error
    except Exception as error:  # storage libraries have errors of their own, without a common base
        if is_local(url) or "Credential" in type(error).__name__:
            raise StorageNotUsableError(f"{url!r} can't be read: {one_line(error)[:200]}.") from error
        raise StorageUnavailableError(f"{url!r} doesn't answer: {one_line(error)[:200]}.") from error


def _entries(filesystem: Any, inner: str, path: str) -> list[dict[str, Any]]:
    info = filesystem.info(inner)
    if info["type"] != "directory":
        raise CheckpointNotUsableError(
            f"{path!r} is neither a folder nor a .zip. Give a folder of checkpoints or a zip."
        )
    return list(filesystem.ls(inner, detail=True))
