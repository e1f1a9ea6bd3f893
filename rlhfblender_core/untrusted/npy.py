"""Headers of ``.npy`` arrays. NumPy's own reader gives them to Python's parser, which a few brackets bring down.

Format: numpy.lib.format, versions 1.0 to 3.0.
"""

import io
import math
import re
import struct
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.untrusted import limits
from rlhfblender_core.untrusted.placeholders import checked_shape

_MAGIC = b"\x93NUMPY"
_VERSIONS = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}
_ITEM = r"\s*['\"](descr|fortran_order|shape)['\"]\s*:\s*('[^'\"\\]*'|\"[^'\"\\]*\"|True|False|\([\dL,\s]*\)|\[.*\])\s*"
_HEADER = re.compile(rf"\s*\{{{_ITEM},{_ITEM},{_ITEM},?\s*\}}\s*", re.DOTALL)
#: Numbers, booleans, texts and objects; nothing with fields, nothing of a foreign size.
_DESCR = re.compile(r"[<>=|]?(\?|[?bBhHiIlLqQefdgFDG]|b1|[iu][1248]|f(2|4|8|12|16)|c(8|16|24|32)|[US]\d{1,9}|O[48]?)")


class DamagedArrayError(Exception):
    """A header that is no header, or claims what can't be; the text is the end of a sentence about the array."""


class ArrayHeader(NamedTuple):
    """What an array says of itself.

    Attributes:
        shape: of the array.
        is_fortran: whether its bytes are in Fortran order.
        dtype: of its elements; objects are possible.
    """

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]

    @property
    def content_bytes(self) -> int:
        """Bytes behind the header; nothing is said of an array of objects."""
        return self.dtype.itemsize * math.prod(self.shape)


def read_npy_header(stream: IO[bytes]) -> ArrayHeader:
    """The header at the start of the stream, which is afterwards at the array's bytes.

    Raises:
        DamagedArrayError: there is none, or it claims what can't be.
    """
    magic = stream.read(len(_MAGIC) + 2)
    version = (magic[-2], magic[-1]) if len(magic) == len(_MAGIC) + 2 else (0, 0)
    if not magic.startswith(_MAGIC) or version not in _VERSIONS:
        raise DamagedArrayError("doesn't begin as an array in the .npy format does")
    field = _VERSIONS[version]
    length_bytes = stream.read(struct.calcsize(field))
    if len(length_bytes) != struct.calcsize(field):
        raise DamagedArrayError("ends within its header")
    (length,) = struct.unpack(field, length_bytes)
    if length > limits.MAX_NPY_HEADER_BYTES:
        raise DamagedArrayError(f"has a header of {length:,} bytes; at most {limits.MAX_NPY_HEADER_BYTES:,} are read")
    text = stream.read(length)
    if len(text) != length:
        raise DamagedArrayError("ends within its header")
    return _parsed(text.decode("latin1"))


def parse_npy(content: bytes) -> NDArray[Any]:
    """The array of numbers or texts in a ``.npy`` file's bytes.

    Raises:
        DamagedArrayError: it is none, or has another length than its header claims: NumPy makes room for that first.
    """
    stream = io.BytesIO(content)
    header = read_npy_header(stream)
    if header.dtype.hasobject:
        raise DamagedArrayError("holds pickled objects")
    left = len(content) - stream.tell() - header.content_bytes
    if left != 0:
        raise DamagedArrayError(f"has {left:+,} bytes compared with its shape {header.shape}")
    flat = (
        np.frombuffer(content, header.dtype, offset=stream.tell())
        if header.content_bytes
        else np.empty(0, header.dtype)
    )
    return flat.reshape(header.shape, order="F" if header.is_fortran else "C")


def _parsed(text: str) -> ArrayHeader:
    match = _HEADER.fullmatch(text)
    items = dict(zip(match.groups()[::2], match.groups()[1::2], strict=True)) if match else {}
    if len(items) != 3:  # noqa: PLR2004 (the three of the pattern, each once)
        raise DamagedArrayError(f"has no header that can be read: {' '.join(text.split())[:60]!r}")
    if items["fortran_order"] not in ("True", "False"):
        raise DamagedArrayError("has a header with a wrong fortran_order")
    return ArrayHeader(_shape(items["shape"]), items["fortran_order"] == "True", _dtype(items["descr"]))


def _dtype(descr: str) -> np.dtype[Any]:
    code = descr[1:-1]
    if not descr.startswith(("'", '"')) or not _DESCR.fullmatch(code):
        raise DamagedArrayError(f"is an array of {descr[:60]}, not of numbers or texts")
    try:
        return np.dtype(code)
    except (TypeError, ValueError) as error:
        raise DamagedArrayError(f"is an array of {descr[:60]}, which this NumPy doesn't know") from error


def _shape(text: str) -> tuple[int, ...]:
    sides = [side.strip().removesuffix("L") for side in text[1:-1].split(",")]
    if sides[-1:] == [""]:
        sides.pop()
    is_shape = text.startswith("(") and len(sides) <= limits.MAX_DIMENSIONS
    if not is_shape or not all(re.fullmatch(r"\d{1,13}", side) for side in sides):
        raise DamagedArrayError(f"has a header with a wrong shape, {text[:40]}")
    return checked_shape(tuple(map(int, sides)))
