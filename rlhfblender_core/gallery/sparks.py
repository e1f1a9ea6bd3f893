"""Tiny curves for the cards: the return as it grows, a byte to a point."""

import base64

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.untrusted.npy import DamagedArrayError, parse_npy

#: Points of a card's curve.
SPARK_POINTS = 32
_SPARK_TOP = 255


def spark(content: bytes | None, length: int) -> str:
    """At most :data:`SPARK_POINTS` bytes in base64 from 0 (lowest) to 255; "" for none.

    Args:
        content: of the file with the cumulative rewards; None where there is none.
        length: steps of the episode; a file with another number of them is none of its.
    """
    growing = None if content is None else _read(content, length)
    if growing is None or len(growing) == 0:
        return ""
    points = growing[np.linspace(0, len(growing) - 1, min(SPARK_POINTS, len(growing))).round().astype(int)]
    known = points[np.isfinite(points)]
    if not known.size:
        return ""
    low, high = float(known.min()), float(known.max())
    points = np.nan_to_num(points, nan=low, posinf=high, neginf=low)
    # Halved, lest the difference overflow; divided before it is multiplied, lest a tiny one do.
    shares = (points / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else np.zeros(len(points))
    return base64.b64encode((shares * _SPARK_TOP).round().astype(np.uint8).tobytes()).decode()


def _read(content: bytes, length: int) -> NDArray[np.float64] | None:
    try:
        array = parse_npy(content)
    except DamagedArrayError:
        return None
    return array.astype(np.float64) if array.shape == (length,) and array.dtype.kind in "biuf" else None
