"""Arrays as Arrow's columns, and parquet files that grow: what the formats on top of ``pyarrow`` share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rlhfblender_core.export.columns import is_text, storable_texts

#: Rows, or bytes, that wait until they are written as one row group.
_GROUP_ROWS, _GROUP_BYTES = 16_384, 32 << 20
#: A file that has this many bytes is followed by another.
_FILE_BYTES = 100 << 20


def arrow_rows(rows: NDArray[Any]) -> pa.Array:
    """(T, …) as an Arrow array of T values, texts, or nested lists of fixed size."""
    if is_text(rows):
        return pa.array(storable_texts(rows), pa.string())
    return _nested(rows.reshape(-1), rows.shape[1:])


def arrow_lists(rows: NDArray[Any]) -> pa.Array:
    """(T, …) as T nested lists of any size, which some readers insist on."""
    return arrow_rows(rows).cast(_list_type(pa.from_numpy_dtype(rows.dtype), rows.ndim - 1))


def arrow_last(rows: NDArray[Any], last: NDArray[Any] | None) -> pa.Array:
    """As many rows as there are, with nothing in each but the last of them.

    Args:
        rows: of the same kind, (T, …).
        last: the value in the last row; None for nothing there, too.
    """
    kind = pa.string() if is_text(rows) else _list_type(pa.from_numpy_dtype(rows.dtype), rows.ndim - 1)
    if last is None:
        return pa.nulls(len(rows), kind)
    value = storable_texts(last[np.newaxis]) if is_text(rows) else [last.tolist()]
    return pa.concat_arrays([pa.nulls(len(rows) - 1, kind), pa.array(value, kind)])


def _nested(flat: NDArray[Any], shape: tuple[int, ...]) -> pa.Array:
    nested = pa.array(np.ascontiguousarray(flat))
    for side in reversed(shape):
        nested = pa.FixedSizeListArray.from_arrays(nested, side)
    return nested


def _list_type(kind: pa.DataType, depth: int) -> pa.DataType:
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


class ParquetFiles:
    """Parquet files below a folder, one after the other, each of some hundred megabytes at most.

    Args:
        pattern: path of a file with ``{}`` for its number.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._bytes = 0
        self.number = 0

    def add(self, columns: Mapping[str, pa.Array]) -> int:
        """Adds rows; returns the number of the file that they are in."""
        if self._bytes >= _FILE_BYTES:
            self.close()
            self.number, self._bytes = self.next_number, 0
        table = pa.table(dict(columns))
        self._waiting.append(table)
        size = table.nbytes
        self._bytes += size
        self._waiting_bytes += size
        self._waiting_rows += len(table)
        if self._waiting_rows >= _GROUP_ROWS or self._waiting_bytes >= _GROUP_BYTES:
            self._flush()
        return self.number

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting).combine_chunks()
            if self._writer is None:
                file = Path(self._pattern.format(self.number))
                file.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(file, table.schema, compression="zstd")
            self._writer.write_table(table)
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    @property
    def next_number(self) -> int:
        """Of the file that the next rows go to."""
        return self.number + (self._bytes >= _FILE_BYTES)

    def close(self) -> None:
        """Finishes the file that is being written."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
