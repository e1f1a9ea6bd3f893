"""Columns that grow by one row per step without growing in memory, and the ``.npz`` they end up in.

A column spills to a temporary file, so that a 100,000-step episode of images costs the same
memory as a short one. The archive is byte for byte reproducible: fixed timestamps, fixed order, fixed compression.
What the keys mean is in :mod:`rlhfblender_core.dataset.episode_writer`.

Format: NumPy's ``.npy`` version 1.0 (numpy.lib.format) inside a zip, as ``np.savez_compressed`` writes it.
"""

import io
import math
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import DTypeLike, NDArray

from rlhfblender_core.untrusted.archives import RefusedArchiveError, open_archive

#: What a column holds in memory before it goes to disk.
_SPOOL_BYTES = 1 << 20
#: What is taken at once for large rows.
_PIECE_BYTES = 1 << 23
_COPY_BYTES = 1 << 20
#: zlib's fastest level shrinks nothing more than 230-fold; its usual one shrinks zeros 1000-fold, as bombs do.
_FASTEST = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Column(Protocol):
    """What the archive needs to know of a column."""

    def header(self) -> dict[str, Any]:
        """The ``.npy`` header: ``descr``, ``fortran_order``, ``shape``."""

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The array's bytes in C order."""

    def close(self) -> None:
        """Frees the temporary file."""


class ArrayColumn:
    """Rows of one dtype and shape.

    Args:
        dtype: NumPy dtype of the rows; no objects.
        shape: shape of one row, ``()`` for scalars.
        spool_folder: where a long column's temporary file goes.
    """

    def __init__(self, dtype: DTypeLike, shape: tuple[int, ...], spool_folder: Path) -> None:
        self.dtype = np.dtype(dtype)
        self.shape = shape
        #: At least 1.
        self.row_bytes = max(1, self.dtype.itemsize * math.prod(shape))
        self._length = 0
        self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=str(spool_folder))  # noqa: SIM115 (closed by close)

    def __len__(self) -> int:
        return self._length

    def extend(self, rows: Sequence[Any] | NDArray[Any]) -> None:
        """Adds rows.

        Raises:
            ValueError: they are of another shape.
            TypeError: they are no numbers.
        """
        block = np.array(rows, self.dtype)
        if block.shape[1:] != self.shape:
            raise ValueError(f"rows of shape {self.shape} were expected, not {block.shape[1:]}")
        self._spool.write(block.data)
        self._length += len(block)

    def header(self) -> dict[str, Any]:
        """See :class:`Column`."""
        descr = npy_format.dtype_to_descr(self.dtype)
        return {"descr": descr, "fortran_order": False, "shape": (len(self), *self.shape)}

    def chunks(self) -> Iterator[bytes | memoryview]:
        """See :class:`Column`."""
        yield from _read_through(self._spool)

    def close(self) -> None:
        """See :class:`Column`."""
        self._spool.close()


class LargeColumn(ArrayColumn):
    """Rows that are large each, as pictures are, taken one by one.

    They are held in pieces of megabytes, for which NumPy asks for huge pages. A file, or a buffer that grows, is taken
    page by page, which cost 15 of the 500 ms of an episode of Pong.

    Args:
        dtype: NumPy dtype of the rows; no objects.
        shape: shape of one row.
        spool_folder: where a long column's temporary file goes.
        held_bytes: what it may hold in memory, and a piece more.
    """

    def __init__(self, dtype: DTypeLike, shape: tuple[int, ...], spool_folder: Path, held_bytes: int) -> None:
        super().__init__(dtype, shape, spool_folder)
        self._held_bytes = held_bytes
        self._piece_rows = max(1, _PIECE_BYTES // self.row_bytes)
        self._pieces: list[NDArray[Any]] = []
        self._free_rows = 0

    def add(self, row: NDArray[Any]) -> None:
        """Adds a row.

        Raises:
            ValueError: it is of another shape.
        """
        if row.shape != self.shape:
            raise ValueError(f"a row of shape {self.shape} was expected, not {row.shape}")
        if not self._free_rows:
            self._begin_piece()
        self._pieces[-1][-self._free_rows] = row
        self._free_rows -= 1
        self._length += 1

    def _begin_piece(self) -> None:
        if sum(piece.nbytes for piece in self._pieces) >= self._held_bytes:
            for piece in self._pieces:
                self._spool.write(piece.data)
            self._pieces.clear()
        self._pieces.append(np.empty((self._piece_rows, *self.shape), self.dtype))
        self._free_rows = self._piece_rows

    def chunks(self) -> Iterator[bytes | memoryview]:
        """See :class:`Column`."""
        yield from super().chunks()
        for piece in self._pieces[:-1]:
            yield piece.data
        for piece in self._pieces[-1:]:
            yield piece[: self._piece_rows - self._free_rows].data

    def close(self) -> None:
        """See :class:`Column`."""
        self._pieces.clear()
        super().close()


class TextColumn:
    """Rows of text of any length; becomes a fixed-width unicode array, NumPy's only text without pickles.

    Args:
        spool_folder: where a long column's temporary file goes.
    """

    def __init__(self, spool_folder: Path) -> None:
        self._spool = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES, dir=str(spool_folder))  # noqa: SIM115 (closed by close)
        self._lengths: list[int] = []
        self._width = 1

    def __len__(self) -> int:
        return len(self._lengths)

    def extend(self, texts: Sequence[str]) -> None:
        """Adds texts."""
        encoded = [text.encode("utf-32-le", errors="surrogatepass") for text in texts]
        self._spool.write(b"".join(encoded))
        self._lengths.extend(map(len, encoded))
        self._width = max(self._width, max(map(len, encoded), default=0) // 4)

    def header(self) -> dict[str, Any]:
        """See :class:`Column`."""
        return {"descr": f"<U{self._width}", "fortran_order": False, "shape": (len(self),)}

    def chunks(self) -> Iterator[bytes]:
        """See :class:`Column`."""
        self._spool.seek(0)
        rows = max(1, _COPY_BYTES // (4 * self._width))
        for start in range(0, len(self), rows):
            lengths = self._lengths[start : start + rows]
            yield b"".join(self._spool.read(length).ljust(4 * self._width, b"\0") for length in lengths)

    def close(self) -> None:
        """See :class:`Column`."""
        self._spool.close()


class WholeArray:
    """An array that is there already, as a column."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = np.asarray(array, order="C")
        if self._array.dtype.hasobject:
            raise TypeError("object arrays would need pickles to load")

    def header(self) -> dict[str, Any]:
        """See :class:`Column`."""
        return npy_format.header_data_from_array_1_0(self._array)

    def chunks(self) -> Iterator[bytes]:
        """See :class:`Column`."""
        yield self._array.tobytes()

    def close(self) -> None:
        """Nothing to free."""


def write_npz(path: Path, columns: Mapping[str, Column]) -> None:
    """Writes an archive that ``np.load(path, allow_pickle=False)`` reads, one member per column, in order.

    One that :func:`~rlhfblender_core.untrusted.archives.open_archive` would refuse, black frames or one long info among
    many short ones, is written again with less compression.

    Raises:
        ValueError: it would be refused all the same.
    """
    _write_archive(path, columns, None)
    if _fault(path):
        _write_archive(path, columns, _FASTEST)
        if fault := _fault(path):
            raise ValueError(f"the arrays can't be stored: their file {fault}")


def _fault(path: Path) -> str | None:
    try:
        with open_archive(path):
            return None
    except RefusedArchiveError as error:
        return str(error)


def _write_archive(path: Path, columns: Mapping[str, Column], level: int | None) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in columns.items():
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            member._compresslevel = level  # type: ignore[attr-defined]  # noqa: SLF001 (public from Python 3.13 on)
            with archive.open(member, "w", force_zip64=True) as stream:
                stream.write(_npy_header(column.header()))
                for chunk in column.chunks():
                    stream.write(chunk)


def write_npy(path: Path, column: Column) -> None:
    """Writes a ``.npy`` file that ``np.load(path, allow_pickle=False)`` reads."""
    with path.open("wb") as stream:
        stream.write(_npy_header(column.header()))
        for chunk in column.chunks():
            stream.write(chunk)


def _npy_header(header: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    npy_format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def _read_through(stream: "tempfile.SpooledTemporaryFile[bytes] | BinaryIO") -> Iterator[bytes]:
    stream.seek(0)
    while chunk := stream.read(_COPY_BYTES):
        yield chunk
