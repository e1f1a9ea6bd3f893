"""Object storage: many files at once, side by side, with no request more than each needs.

fsspec's own functions for many files first ask for each whether it is there, and whether it is a folder.
"""

import contextlib
import mimetypes
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rlhfblender_core.errors import StorageUnavailableError
from rlhfblender_core.storage.failures import no_bucket, storage_errors
from rlhfblender_core.storage.root import DataRoot

A = TypeVar("A")
R = TypeVar("R")

#: Requests under way at once. More only queue up: one thread of this process speaks to the server.
_AT_ONCE = 16
_OUT_OF_RANGE = 416
#: What browsers need, by the file's extension; Python's own table depends on the machine.
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".png": "image/png",
}


def side_by_side(function: Callable[[A], R], arguments: Iterable[A]) -> list[R]:
    """The function's results in order; after a failure those that haven't begun aren't tried any more."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        futures = [pool.submit(function, argument) for argument in arguments]
        try:
            return [future.result() for future in futures]
        except BaseException:  # an interrupt, too: what has not begun is dropped; raised again
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def read_objects(root: DataRoot, paths: Iterable[str], most: int) -> dict[str, bytes]:
    """The contents of those that exist, by path, with one GET each; of what has more bytes, none."""

    def read(path: str) -> tuple[str, bytes | None]:
        full_path = root.full_path(path)
        try:
            with storage_errors(root):
                content: bytes = root.fs.cat_file(full_path, start=0, end=most + 1)
        except FileNotFoundError:
            return path, None
        except StorageUnavailableError as error:
            if not _is_out_of_range(error):
                raise
            content = b""  # servers find no first byte in what is empty
        return path, content if len(content) <= most else b""

    return {path: content for path, content in side_by_side(read, paths) if content is not None}


def _is_out_of_range(error: StorageUnavailableError) -> bool:
    """Whether a server says that a file doesn't have the bytes that were asked for: HTTP's 416."""
    cause = error.__cause__
    status = getattr(cause, "code", None) or getattr(cause, "status_code", None)
    return status == _OUT_OF_RANGE or all(word in str(cause).lower() for word in ("range", "satisf"))


def object_sizes(root: DataRoot, paths: Iterable[str]) -> dict[str, int]:
    """Sizes in bytes of those that exist, by path."""

    def ask(path: str) -> tuple[str, int | None]:
        try:
            with storage_errors(root):
                return path, int(root.fs.info(root.full_path(path))["size"])
        except FileNotFoundError:
            return path, None

    return {path: size for path, size in side_by_side(ask, paths) if size is not None}


def upload_files(root: DataRoot, files: Mapping[str, Path]) -> None:
    """Uploads local files to their paths with one PUT each; each is removed here once it is there."""

    def upload(item: tuple[str, Path]) -> None:
        path, local = item
        if local.exists():
            root.fs.put_file(str(local), root.full_path(path), **_content_type(root, path))
            local.unlink()
        elif not root.fs.exists(root.full_path(path)):  # else uploaded by an earlier try
            raise StorageUnavailableError(f"{local} is gone before {root.display_url(path)} was written. Run it again.")

    _write(root, upload, files.items())


def upload_contents(root: DataRoot, contents: Mapping[str, bytes]) -> None:
    """Writes small files by path with one PUT each."""

    def upload(item: tuple[str, bytes]) -> None:
        path, content = item
        root.fs.pipe_file(root.full_path(path), content, **_content_type(root, path))

    _write(root, upload, contents.items())


def _write(root: DataRoot, upload: Callable[[A], None], items: Iterable[A]) -> None:
    try:
        with storage_errors(root):
            side_by_side(upload, items)
    except FileNotFoundError as error:
        raise no_bucket(root) from error


def remove_objects(root: DataRoot, paths: Iterable[str]) -> None:
    """Removes those that are there."""

    def remove(path: str) -> None:
        with contextlib.suppress(FileNotFoundError), storage_errors(root):
            root.fs.rm_file(root.full_path(path))

    side_by_side(remove, paths)


def _content_type(root: DataRoot, path: str) -> dict[str, object]:
    """The argument by which the file system takes the content's type; nothing where it takes none."""
    extension = f".{path.rpartition('.')[2]}"
    kind = _CONTENT_TYPES.get(extension) or mimetypes.guess_type(path)[0] or "application/octet-stream"
    match root.protocol:
        case "s3" | "s3a":
            return {"ContentType": kind}
        case "gs" | "gcs":
            return {"content_type": kind}
        case "az" | "abfs" | "abfss":
            return {"content_settings": {"content_type": kind}}
    return {}
