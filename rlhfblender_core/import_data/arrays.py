"""The arrays in a source's ``.npz`` and ``.npy`` files. Numbers are streamed, objects go through the allow-list."""

import contextlib
import errno
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from rlhfblender_core.dataset.state_texts import state_text
from rlhfblender_core.errors import DataNotUsableError, RLHFBlenderError, one_line
from rlhfblender_core.untrusted.archives import RefusedArchiveError, open_archive
from rlhfblender_core.untrusted.limits import MAX_WHOLE_BYTES
from rlhfblender_core.untrusted.npy import ArrayHeader, DamagedArrayError, parse_npy, read_npy_header
from rlhfblender_core.untrusted.pickles import DamagedPickleError, RefusedPickleError
from rlhfblender_core.untrusted.placeholders import resolved
from rlhfblender_core.untrusted.plain_values import read_objects, read_state_objects

_COPY_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\- ]{0,100}")
#: Booleans, integers, floats, texts.
_KINDS = "biufU"


class FaultError(Exception):
    """Something about a file's content can't be imported; the text is the end of a line that names the file."""


@contextlib.contextmanager
def reading_errors(shown: str) -> Iterator[None]:
    """Raises what reading a damaged or malicious file raises as one line that names it.

    Raises:
        DataNotUsableError: instead.
    """
    try:
        yield
    except RLHFBlenderError:
        raise
    except RefusedPickleError as error:
        raise DataNotUsableError(
            f"{shown}: refused, its pickle uses {str(error)[:120]}, which is not on the list of what may be read. "
            "Save it without such objects."
        ) from error
    except DamagedPickleError as error:
        raise DataNotUsableError(f"{shown}: its pickle can't be read: {one_line(error)}") from error
    except (FaultError, RefusedArchiveError) as error:
        raise DataNotUsableError(f"{shown}: {' '.join(str(error).split())}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUR_DISK:
            raise
        raise DataNotUsableError(f"{shown}: can't be read: {one_line(error)}") from error


#: What is written meanwhile goes to our disk: that it is full is no fault of the file.
_OUR_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE})


class Members:
    """The arrays of an ``.npz`` file, opened one by one.

    Args:
        archive: the open file.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.headers: dict[str, ArrayHeader] = {}
        self.ignored: list[str] = []
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename or not is_column_name(name):
                self.ignored.append(member.filename)
                continue
            with archive.open(member) as stream:
                self.headers[name] = _header(stream, name)
                left = member.file_size - stream.tell() - self.headers[name].content_bytes
            if left != 0 and not self.has_objects(name):
                raise FaultError(f"{member.filename} has {left:+,} bytes compared with its shape")

    def __contains__(self, name: str) -> bool:
        return name in self.headers

    def rows(self, name: str) -> int | None:
        """Length of the array's first axis; None for a scalar."""
        shape = self.headers[name].shape
        return shape[0] if shape else None

    def has_objects(self, name: str) -> bool:
        """Whether the array holds pickled objects."""
        return self.headers[name].dtype.hasobject

    def column(self, name: str) -> "MemberColumn":
        """The array of numbers or texts, unread."""
        dtype = self.headers[name].dtype
        if dtype.kind not in _KINDS:
            raise FaultError(f"{name} is an array of {dtype}, not of numbers or texts")
        return MemberColumn(self._archive, f"{name}.npy", self.headers[name])

    def array(self, name: str) -> NDArray[Any]:
        """The array of numbers or texts."""
        self._check_whole(name)
        shape, is_fortran, dtype = self.headers[name]
        content = b"".join(self.column(name).chunks())
        array = np.frombuffer(content, dtype)
        return array.reshape(shape, order="F" if is_fortran else "C")

    def objects(self, name: str) -> list[Any]:
        """The elements of an array of objects, as plain values."""
        self._check_whole(name)
        with self._archive.open(f"{name}.npy") as stream:
            read_npy_header(stream)
            return read_objects(stream.read(), self._archive.getinfo(f"{name}.npy").compress_size)

    def states(self, name: str) -> list[Any]:
        """The elements of an array of the environment's states, as :func:`read_states` gives them."""
        self._check_whole(name)
        with self._archive.open(f"{name}.npy") as stream:
            read_npy_header(stream)
            return _states(stream.read(), self._archive.getinfo(f"{name}.npy").compress_size)

    def _check_whole(self, name: str) -> None:
        size = self._archive.getinfo(f"{name}.npy").file_size
        if size > MAX_WHOLE_BYTES:
            raise FaultError(f"{name} unpacks to {size:,} bytes; at most {MAX_WHOLE_BYTES:,} are read")


class MemberColumn:
    """An array in an archive as a column of another: its bytes are handed on as they are."""

    def __init__(self, archive: zipfile.ZipFile, member: str, header: ArrayHeader) -> None:
        self._archive = archive
        self._member = member
        self.shape, self._is_fortran, self.dtype = header

    def header(self) -> dict[str, Any]:
        """See :class:`rlhfblender_core.dataset.npz.Column`."""
        descr = npy_format.dtype_to_descr(self.dtype)
        return {"descr": descr, "fortran_order": self._is_fortran, "shape": self.shape}

    def chunks(self) -> Iterator[bytes]:
        """See :class:`rlhfblender_core.dataset.npz.Column`."""
        left = ArrayHeader(self.shape, self._is_fortran, self.dtype).content_bytes
        with self._archive.open(self._member) as stream:
            read_npy_header(stream)
            while chunk := stream.read(_COPY_BYTES):
                left -= len(chunk)
                yield chunk
        if left != 0:
            raise FaultError(f"{self._member} has {-left:+,} bytes compared with its shape")

    def close(self) -> None:
        """Nothing to free."""


@contextlib.contextmanager
def open_members(file: Path, shown: str) -> Iterator[Members]:
    """The arrays of an ``.npz`` file.

    Raises:
        DataNotUsableError: whatever is wrong with the file, also while the context lasts.
    """
    with reading_errors(shown), open_archive(file) as archive:
        yield Members(archive)


def read_numbers(file: Path, shown: str) -> NDArray[np.float64]:
    """The one-dimensional array of numbers in an ``.npy`` file, or the only one in an ``.npz``.

    Raises:
        DataNotUsableError: it has none.
    """
    with reading_errors(shown):
        if file.suffix == ".npz":
            with open_archive(file) as archive:
                members = Members(archive)
                if len(members.headers) != 1:
                    raise FaultError(f"has {len(members.headers)} arrays instead of one")
                name = next(iter(members.headers))
                array = np.array(members.objects(name) if members.has_objects(name) else members.array(name))
        else:
            array = _read_npy(file)
        if array.ndim != 1 or array.dtype.kind not in "biuf":
            raise FaultError(f"is an array of shape {array.shape} and dtype {array.dtype}, not one number per step")
        return array.astype(np.float64)


def read_states(file: Path) -> list[Any]:
    """The elements of ``env_states_<n>.npy``: plain values, or states that are texts (:mod:`.dataset.state_texts`).

    Raises:
        FaultError, RefusedPickleError, DamagedPickleError: it holds something else.
    """
    if file.stat().st_size > MAX_WHOLE_BYTES:
        raise FaultError(f"have more than {MAX_WHOLE_BYTES:,} bytes")
    with file.open("rb") as stream:
        if not _header(stream, None).dtype.hasobject:
            raise FaultError("are no array of objects")
        return _states(stream.read())


def _states(content: bytes, packed: int | None = None) -> list[Any]:
    try:
        return read_objects(content, packed)
    except RefusedPickleError:
        return [_with_text(row) for row in read_state_objects(content, packed)]


def _with_text(row: Any) -> Any:
    if not isinstance(row, dict) or row.get("state") is None:
        return row
    elapsed = {name: resolved(row[name]) for name in ("elapsed_steps",) if name in row}
    return {"state": state_text(row["state"]), **elapsed}


def is_column_name(name: str) -> bool:
    """Whether a column may have that name."""
    return _NAME.fullmatch(name) is not None


def _read_npy(file: Path) -> NDArray[Any]:
    if file.stat().st_size > MAX_WHOLE_BYTES:
        raise FaultError(f"has more than {MAX_WHOLE_BYTES:,} bytes")
    content = file.read_bytes()
    stream = io.BytesIO(content)
    if _header(stream, None).dtype.hasobject:
        return np.array(read_objects(stream.read()))
    try:
        return parse_npy(content)
    except DamagedArrayError as error:
        raise FaultError(str(error)) from error


def _header(stream: IO[bytes], name: str | None) -> ArrayHeader:
    try:
        return read_npy_header(stream)
    except DamagedArrayError as error:
        raise FaultError(f"{error}" if name is None else f"{name} {error}") from error
