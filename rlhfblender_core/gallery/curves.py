"""Curves as the page's scripts hold them: float32 in base64, and tiny ones for the cards.

Text in scripts and not files to fetch, because a page opened from a disk may load scripts but not fetch.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.gallery.escape import JsonValue
from rlhfblender_core.untrusted.npy import DamagedArrayError, parse_npy

#: Longer episodes are drawn with several steps to a point: a screen has fewer pixels than this.
MAX_POINTS = 20_000
#: Points of a card's curve.
SPARK_POINTS = 32
_SPARK_TOP = 255

Curve = NDArray[np.float64]


@dataclass(frozen=True)
class EpisodeCurves:
    """An episode's curves, per step.

    Attributes:
        rewards: float64 (T,), None where the file is missing or broken.
        uncertainty: float64 (T,), None where missing, broken, or NaN throughout.
    """

    rewards: Curve | None
    uncertainty: Curve | None

    def to_json(self) -> JsonValue:
        """What the page's scripts read: two curves in base64 and the number of steps to a point."""
        length = max(len(curve) if curve is not None else 0 for curve in (self.rewards, self.uncertainty))
        stride = max(1, -(-length // MAX_POINTS))
        return [_packed(self.rewards, stride), _packed(self.uncertainty, stride), stride]


def read_curves(files: Mapping[str, bytes], rewards_path: str, uncertainty_path: str, length: int) -> EpisodeCurves:
    """The curves in an episode's files, as far as they are there and have as many rows as the episode has steps."""
    cumulative = _read(files.get(rewards_path), length)
    uncertainty = _read(files.get(uncertainty_path), length)
    with np.errstate(invalid="ignore"):  # inf - inf
        rewards = None if cumulative is None else np.diff(cumulative, prepend=0.0)
    is_known = uncertainty is not None and bool(np.isfinite(uncertainty).any())
    return EpisodeCurves(rewards, uncertainty if is_known else None)


def spark(rewards: Curve | None) -> str:
    """The return as it grows, at most :data:`SPARK_POINTS` bytes in base64 from 0 (lowest) to 255; "" for none."""
    if rewards is None or len(rewards) == 0:
        return ""
    with np.errstate(over="ignore"):
        growing = np.nan_to_num(np.cumsum(np.nan_to_num(rewards, nan=0.0, posinf=0.0, neginf=0.0)))
    points = growing[np.linspace(0, len(growing) - 1, min(SPARK_POINTS, len(growing))).round().astype(int)]
    low, high = float(points.min()), float(points.max())
    # Halved, lest the difference overflow; divided before it is multiplied, lest a tiny one do.
    shares = (points / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else np.zeros(len(points))
    return base64.b64encode((shares * _SPARK_TOP).round().astype(np.uint8).tobytes()).decode()


def _read(content: bytes | None, length: int) -> Curve | None:
    if content is None:
        return None
    try:
        array = parse_npy(content)
    except DamagedArrayError:
        return None
    return array.astype(np.float64) if array.shape == (length,) and array.dtype.kind in "biuf" else None


def _packed(curve: Curve | None, stride: int) -> str | None:
    """Little-endian float32; of several steps the value that is farthest from zero stands for all."""
    if curve is None:
        return None
    if stride > 1:
        padded = np.pad(curve, (0, -len(curve) % stride), mode="edge").reshape(-1, stride)
        distance = np.where(np.isnan(padded), -1.0, np.abs(padded))
        curve = padded[np.arange(len(padded)), distance.argmax(axis=1)]
    with np.errstate(over="ignore"):  # beyond float32 is infinite: drawn as a gap
        return base64.b64encode(curve.astype("<f4").tobytes()).decode()
