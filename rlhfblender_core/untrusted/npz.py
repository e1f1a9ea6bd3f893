"""The arrays of an ``.npz`` file, as ``np.load`` gives them, but of a file that may be anybody's.

Nothing is unpickled, and no more memory is used than the file's own size allows
(:mod:`rlhfblender_core.untrusted.limits`).
Format: NumPy's ``.npy`` (numpy.lib.format) in a zip.
"""

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.errors import DataNotUsableError, one_line
from rlhfblender_core.untrusted.archives import DAMAGED_ARCHIVE, RefusedArchiveError, open_archive
from rlhfblender_core.untrusted.npy import ArrayHeader, DamagedArrayError, read_npy_header

_SUFFIX = ".npy"
_ADVICE = "Run `python flows/verify.py --repair`."


class Arrays(Mapping[str, NDArray[Any]]):
    """Arrays by name, each read when it is asked for.

    Args:
        archive: from :func:`~rlhfblender_core.untrusted.archives.open_archive`.
        shown: the file, as a person knows it.
    """

    def __init__(self, archive: zipfile.ZipFile, shown: str) -> None:
        self._archive = archive
        self._shown = shown
        self._names = [name.removesuffix(_SUFFIX) for name in archive.namelist() if name.endswith(_SUFFIX)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The array.

        Raises:
            KeyError: the file has none of that name.
            DataNotUsableError: it is damaged, or holds pickled objects.
        """
        if name not in self._names:
            raise KeyError(name)
        with reading_arrays(self._shown):
            return _read(self._archive, f"{name}{_SUFFIX}")

    def rows(self, name: str) -> Iterator[NDArray[Any]]:
        """One row of the array after the other: memory holds one at a time.

        Raises:
            DataNotUsableError: it is damaged, holds pickled objects, or isn't stored row by row.
        """
        with reading_arrays(self._shown), self._archive.open(f"{name}{_SUFFIX}") as stream:
            header = read_npy_header(stream)
            if header.dtype.hasobject or header.is_fortran or not header.shape:
                raise DamagedArrayError(f"{name} has no rows of numbers or texts")
            shape = header.shape[1:]
            size = header.content_bytes // max(1, header.shape[0])
            for _ in range(header.shape[0]):
                content = stream.read(size)
                if len(content) != size:
                    raise DamagedArrayError(f"{name} ends within a row")
                yield np.frombuffer(content, header.dtype).reshape(shape) if size else np.empty(shape, header.dtype)


@contextlib.contextmanager
def open_arrays(source: Path | IO[bytes], shown: str) -> Iterator[Arrays]:
    """The arrays of an ``.npz`` file.

    Args:
        source: the file, or its bytes as a stream.
        shown: how a person knows it.

    Raises:
        FileNotFoundError: there is no such file.
        DataNotUsableError: it is damaged, or claims what nothing honest does.
    """
    with contextlib.ExitStack() as stack:
        with reading_arrays(shown):
            archive = stack.enter_context(open_archive(source))
        yield Arrays(archive, shown)


@contextlib.contextmanager
def reading_arrays(shown: str) -> Iterator[None]:
    """Raises what reading damaged arrays raises as one line that names the file.

    Raises:
        DataNotUsableError: instead.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataNotUsableError(f"{shown}: can't be read: {error.strerror or error}") from error
    except (RefusedArchiveError, DamagedArrayError) as error:
        raise DataNotUsableError(f"{shown}: {error}. {_ADVICE}") from error
    except DAMAGED_ARCHIVE as error:
        raise DataNotUsableError(f"{shown} can't be read: {one_line(error).rstrip('.')}. {_ADVICE}") from error


def _read(archive: zipfile.ZipFile, member: str) -> NDArray[Any]:
    with archive.open(member) as stream:
        header: ArrayHeader = read_npy_header(stream)
        if header.dtype.hasobject:
            raise DamagedArrayError(f"{member} holds pickled objects")
        behind = archive.getinfo(member).file_size - stream.tell()
        if behind != header.content_bytes:
            raise DamagedArrayError(f"{member} has {behind:,} bytes, its shape {header.shape} says otherwise")
        content = bytearray(stream.read(behind + 1))  # sizes in the list may lie; writable, as PyTorch wants arrays
        if len(content) != behind:
            raise DamagedArrayError(f"{member} has another length than recorded")
    flat = np.frombuffer(content, header.dtype) if content else np.empty(0, header.dtype)
    return flat.reshape(header.shape, order="F" if header.is_fortran else "C")
