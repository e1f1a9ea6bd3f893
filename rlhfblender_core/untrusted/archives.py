"""Zips of others: what their lists of members claim is checked before anything is unpacked."""

import contextlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rlhfblender_core.untrusted import limits

_END, _END_BYTES, _LOCATOR, _LOCATOR_BYTES, _END64_BYTES = b"PK\x05\x06", 22, b"PK\x06\x07", 20, 56
_MAX_COMMENT = 2**16
_LOCAL_HEADER_BYTES = 30
#: Those of everybody who writes such files; the others' readers raise errors of their own on damaged input.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

#: All that zipfile raises on damaged input, found by flipping bits.
DAMAGED_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # patched data, or strong encryption
    RuntimeError,
    ValueError,
    LookupError,
    OverflowError,
    MemoryError,
)


class RefusedArchiveError(Exception):
    """A zip that claims what nothing honest does; the text is the end of a sentence about the file."""


@contextlib.contextmanager
def open_archive(source: Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """A zip for reading, its list of members checked.

    Raises:
        RefusedArchiveError: it has very many members, two of one name, or overlapping ones, is a zip bomb, or is
            compressed by another method than deflate; or it is no file, but a folder, a pipe or a device.
        zipfile.BadZipFile: it is no zip.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):  # opening a pipe never ends
            raise RefusedArchiveError("is no file")
        stream = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
        size = stream.seek(0, 2)
        if size > limits.MAX_ARCHIVE_BYTES:
            raise RefusedArchiveError(f"is larger than {limits.MAX_ARCHIVE_BYTES >> 30} GiB")
        _check_directory(stream, size)
        archive = stack.enter_context(zipfile.ZipFile(stream))
        _check_members(archive, size)
        yield archive


def _check_directory(stream: IO[bytes], size: int) -> None:
    """Checks the list of members, which zipfile reads whole: that it is short, and there where it is said to be."""
    tail_bytes = min(size, _END_BYTES + _MAX_COMMENT + _LOCATOR_BYTES + _END64_BYTES)
    stream.seek(size - tail_bytes)
    tail = stream.read(tail_bytes)
    # zipfile looks for an end without a comment first.
    end = len(tail) - _END_BYTES if tail[-_END_BYTES:-18] == _END and tail[-2:] == b"\0\0" else tail.rfind(_END)
    if end < 0 or end + _END_BYTES > len(tail):
        raise zipfile.BadZipFile("File is not a zip file")
    length, begin = struct.unpack_from("<LL", tail, end + 12)
    behind = size - len(tail) + end
    locator = end - _LOCATOR_BYTES
    if locator >= _END64_BYTES and tail[locator : locator + 4] == _LOCATOR:
        length, begin = struct.unpack_from("<QQ", tail, locator - _END64_BYTES + 40)
        behind -= _LOCATOR_BYTES + _END64_BYTES
        if struct.unpack_from("<Q", tail, locator + 8) != (behind,):
            raise zipfile.BadZipFile("its end is not where it says")
    if length > limits.MAX_DIRECTORY_BYTES:
        raise RefusedArchiveError("has a list of members that is far too long")
    # zipfile takes the list that ends the file, wherever it is said to be; other readers, torch's too, take that one.
    if begin + length != behind:
        raise zipfile.BadZipFile("it is cut off or has foreign bytes in front")


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    if len(members) > limits.MAX_MEMBERS:
        raise RefusedArchiveError(f"has {len(members)} members, at most {limits.MAX_MEMBERS} are read")
    if len({member.filename for member in members}) != len(members):
        raise RefusedArchiveError("has two members of the same name")
    if any(member.compress_type not in _METHODS for member in members):
        raise RefusedArchiveError("is compressed by another method than deflate; zip it again")
    end = 0
    for member in sorted(members, key=lambda one: one.header_offset):
        if member.header_offset < end:
            raise RefusedArchiveError("has members that overlap")
        end = member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size
    unpacked = sum(member.file_size for member in members)
    if unpacked > limits.SOME_UNPACKED_BYTES + limits.UNPACKED_PER_BYTE * size:
        raise RefusedArchiveError(f"is a zip bomb: {size:,} bytes unpack to {unpacked:,}")


def check_held(archive: zipfile.ZipFile, name: str, most: int) -> None:
    """Checks a member that will be held in memory.

    Args:
        archive: from :func:`open_archive`.
        name: of the member.
        most: bytes that it may have.

    Raises:
        RefusedArchiveError: it is larger, or compressed like nothing honest is.
    """
    member = archive.getinfo(name)
    if member.file_size > most:
        raise RefusedArchiveError(f"unpacks to too much: {name} has {member.file_size:,} bytes, {most:,} are allowed")
    if member.file_size > limits.SOME_HELD_BYTES + limits.HELD_PER_BYTE * member.compress_size:
        raise RefusedArchiveError(f"is a zip bomb: {name} unpacks to {member.file_size:,} bytes")


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A member's bytes; the zip's CRC-32 is checked on the way.

    Raises:
        RefusedArchiveError: see :func:`check_held`, or it has another length than recorded.
    """
    check_held(archive, name, most)
    size = archive.getinfo(name).file_size
    with archive.open(name) as member:
        # Sizes in the list may lie: never more than they claim is kept in memory.
        content = member.read(size + 1)
    if len(content) != size:
        raise RefusedArchiveError(f"is damaged: {name} has another length than recorded")
    return content
