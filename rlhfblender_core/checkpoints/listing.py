"""Folders of agents as lists of names, on local disks and on any fsspec storage alike."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from fsspec.utils import get_protocol

from rlhfblender_core.errors import (
    CheckpointNotUsableError,
    RLHFBlenderError,
    StorageNotUsableError,
    StorageUnavailableError,
)
from rlhfblender_core.storage import install_hint, is_not_found, is_refusal, open_file_system, size_of, words_of

#: File systems of fsspec that read where the files are from a file, which may say so in templates that never end.
_RECIPES = ("reference",)


@dataclass(frozen=True, slots=True)
class Folder:
    """What is in one folder.

    Attributes:
        path: as its user wrote it, without a slash at the end.
        files: names of the files in it.
        folders: names of the folders in it.
        storage_options: for opening what is in it.
        sizes: bytes of its files by name, where the listing says them.
    """

    path: str
    files: frozenset[str]
    folders: frozenset[str]
    storage_options: Mapping[str, Any] | None
    sizes: Mapping[str, int] = field(default_factory=dict)

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
    held = {
        str(entry["name"]).rstrip("/").rpartition("/")[2]: entry
        for entry in entries
        if str(entry["name"]).strip("/") != own
    }
    return Folder(
        path=path.rstrip("/") or "/",
        files=frozenset(name for name, entry in held.items() if name and _is_file(entry)),
        folders=frozenset(name for name, entry in held.items() if entry["type"] == "directory" and name),
        storage_options=storage_options,
        sizes={name: entry["size"] for name, entry in held.items() if isinstance(entry.get("size"), int)},
    )


def open_filesystem(url: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """The fsspec filesystem of a URL, and the path in it; plain paths are local, ``~`` is the home folder.

    Raises:
        StorageNotUsableError: the URL's package is missing, or the URL is a recipe for files (``reference``).
    """
    if any(get_protocol(part) in _RECIPES or part in _RECIPES for part in url.split("::")):
        raise StorageNotUsableError(f"{url!r} names a recipe for files elsewhere, not files. Give the files' own URL.")
    if "::" in url:  # a file system in another one: fsspec knows how
        filesystem, inner = fsspec.core.url_to_fs(url, **(storage_options or {}))
        return filesystem, str(inner)
    protocol = str(get_protocol(url))
    try:
        filesystem = open_file_system(protocol, {} if is_local(url) else storage_options or {})
    except ImportError as error:
        raise StorageNotUsableError(
            f"{url!r} needs a package that is missing. {install_hint(protocol, error)}"
        ) from error
    plain = str(Path(url).expanduser()) if "://" not in url else url
    return filesystem, str(filesystem._strip_protocol(plain))  # noqa: SLF001 (fsspec's own name for it)


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
    except (ImportError, ValueError, TypeError) as error:
        raise StorageNotUsableError(f"{url!r} can't be opened: {words_of(error)}.") from error
    except Exception as error:  # storage libraries have errors of their own, without a common base
        if is_not_found(error) or isinstance(error, NotADirectoryError):
            raise CheckpointNotUsableError(f"There is nothing at {url!r}. Check the path of the model.") from error
        if is_local(url):
            raise StorageNotUsableError(f"{url!r} can't be read: {words_of(error)}.") from error
        if is_refusal(error):
            raise StorageNotUsableError(
                f"{url!r} refuses access: {words_of(error)}. Check the credentials (the storage's usual environment "
                "variables, or RLHFBLENDER_STORAGE_OPTIONS) and their rights."
            ) from error
        raise StorageUnavailableError(f"{url!r} doesn't answer: {words_of(error)}.") from error


def is_folder(path: str, storage_options: Mapping[str, Any] | None = None) -> bool | None:
    """Whether a path is a folder; False for a file, None where there is nothing.

    Raises:
        StorageNotUsableError: the URL's storage can't be used.
        StorageUnavailableError: it doesn't answer.
    """
    with storage_errors(path):
        filesystem, inner = open_filesystem(path, storage_options)
        try:
            return bool(filesystem.info(inner)["type"] == "directory")
        except (FileNotFoundError, NotADirectoryError):
            return None


def _is_file(entry: Mapping[str, Any]) -> bool:
    """Whether it can be read to an end: no folder, and on this machine no pipe, and no link to a device."""
    if entry["type"] == "file" and not entry.get("islink"):
        return True
    return entry["type"] != "directory" and size_of(Path(str(entry["name"]))) is not None


def _entries(filesystem: Any, inner: str, path: str) -> list[dict[str, Any]]:
    info = filesystem.info(inner)
    if info["type"] != "directory":
        raise CheckpointNotUsableError(not_a_checkpoint(path))
    return list(filesystem.ls(inner, detail=True))


#: How agents of other frameworks act.
BY_ENTRY_POINT = "name a function that makes it act with --agent (docs/own_agents.md)"


def not_a_checkpoint(path: str) -> str:
    """The line for a file that holds no model."""
    return (
        f"{path!r} is neither a folder nor a .zip of Stable-Baselines3's. Give a folder of checkpoints or a zip; for "
        f"another framework's agent, {BY_ENTRY_POINT}."
    )
