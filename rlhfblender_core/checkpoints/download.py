"""Files of checkpoints on this machine: local ones where they are, others from a cache, unzipped models zipped."""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhfblender_core.checkpoints.listing import is_local, open_filesystem, storage_errors
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.storage import size_of
from rlhfblender_core.untrusted.file_kinds import HEAD_BYTES, is_pointer
from rlhfblender_core.untrusted.model_zip import DATA, POINTER_PROBLEM, VARIABLES, VERSION, WEIGHTS, refusal

#: Below the cache, for what is being fetched.
_UNFINISHED = ".unfinished"
_MEMBERS = (DATA, VARIABLES, WEIGHTS, VERSION)


def fetched(url: str, cache: Path, storage_options: Mapping[str, Any] | None, limit: int) -> tuple[Path, str]:
    """The file on this machine and its sha256; a local file itself, a remote or an unzipped one from the cache.

    Args:
        url: of a file, or of the folder that a model was unzipped into.
        cache: folder for what isn't here as a file; made if needed.
        storage_options: for fsspec.
        limit: bytes that it may have.

    Raises:
        CheckpointNotUsableError: missing, or too large.
        StorageNotUsableError, StorageUnavailableError: its storage can't be used or doesn't answer.
    """
    with storage_errors(url):
        filesystem, inner = open_filesystem(url, storage_options)
        info = filesystem.info(inner)
        if info["type"] == "directory":
            return _zipped(filesystem, inner, url, cache, limit)
        size = info.get("size")
        if isinstance(size, int) and size > limit:
            raise refusal(url, f"has {size:,} bytes, {limit:,} are allowed")
        if is_local(url):
            path = Path(inner)
            return path, sha256_of(path)
        # What a storage gives as identity of the content: ETag, generation, modification time.
        identity = hashlib.sha256(f"{url}\n{filesystem.ukey(inner)}".encode()).hexdigest()
        return _cached(cache, identity, url) or _downloaded(filesystem, inner, cache, identity)


def _cached(cache: Path, identity: str, url: str) -> tuple[Path, str] | None:
    """The file as it was downloaded before, if its bytes are still the same."""
    try:
        digest = json.loads((cache / f"{identity}.json").read_text())["sha256"]
        path = cache / f"{digest}{Path(url).suffix}"
        return (path, digest) if sha256_of(path) == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _downloaded(filesystem: Any, inner: str, cache: Path, identity: str) -> tuple[Path, str]:
    cache.mkdir(parents=True, exist_ok=True)
    with open_scratch(cache / _UNFINISHED) as folder:
        part = folder / "part"
        filesystem.get_file(inner, str(part))
        path, digest = _in_cache(part, cache, Path(inner).suffix)
        note = folder / "note"
        note.write_text(json.dumps({"sha256": digest}))
        os.replace(note, cache / f"{identity}.json")  # noqa: PTH105
    return path, digest


def _zipped(filesystem: Any, inner: str, url: str, cache: Path, limit: int) -> tuple[Path, str]:
    """The members of an unzipped model as a zip, whose bytes depend on theirs alone."""
    sizes = {
        str(entry["name"]).rpartition("/")[2]: int(entry["size"] or 0)
        for entry in filesystem.ls(inner, detail=True)
        if entry["type"] != "directory"
    }
    # A device or a pipe claims to have no bytes, and never ends.
    held = [name for name in _MEMBERS if name in sizes and not (is_local(url) and size_of(Path(inner, name)) is None)]
    if not {DATA, WEIGHTS} <= set(held):
        raise refusal(url, f"is a folder without {DATA} and {WEIGHTS}, which a model has")
    if sum(sizes[name] for name in held) > limit:
        raise refusal(url, f"has more than {limit:,} bytes")
    cache.mkdir(parents=True, exist_ok=True)
    with open_scratch(cache / _UNFINISHED) as folder:
        part = folder / "part"
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name in held:
                with filesystem.open(f"{inner}/{name}", "rb") as member:
                    content = member.read()
                if is_pointer(content[:HEAD_BYTES]):
                    raise refusal(f"{url}/{name}", POINTER_PROBLEM)
                # Without a time of its own each member gets that of 1980: the same members give the same bytes.
                archive.writestr(zipfile.ZipInfo(name), content)
        return _in_cache(part, cache, ".zip")


def _in_cache(part: Path, cache: Path, suffix: str) -> tuple[Path, str]:
    digest = sha256_of(part)
    path = cache / f"{digest}{suffix}"
    # Several processes may fetch the same file: each move puts the same bytes in place at once.
    os.replace(part, path)  # noqa: PTH105 - atomic by name
    return path, digest


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
