"""Statistics of features over all steps of a data set, made while it is written: minimum, maximum, mean, deviation.

Means and deviations are merged from part to part (Chan, Golub and LeVeque 1979): exact, in one pass, in flat memory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """Of one feature; each array has the shape of one row.

    Attributes:
        count: rows.
        minimum, maximum, mean: of each element.
        spread: sum of squared distances from the mean.
    """

    count: int
    minimum: _Numbers
    maximum: _Numbers
    mean: _Numbers
    spread: _Numbers

    @property
    def std(self) -> _Numbers:
        """Population standard deviation."""
        return np.sqrt(self.spread / self.count)


def statistics_of(rows: NDArray[Any]) -> Statistics:
    """Of (N, …) numbers or flags, N > 0."""
    numbers = rows.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite numbers have no deviation
        mean = numbers.mean(axis=0)
        spread = ((numbers - mean) ** 2).sum(axis=0)
    return Statistics(len(numbers), numbers.min(axis=0), numbers.max(axis=0), mean, spread)


def merged(one: Statistics | None, other: Statistics) -> Statistics:
    """Of the rows of both."""
    if one is None:
        return other
    count = one.count + other.count
    with np.errstate(invalid="ignore", over="ignore"):
        apart = other.mean - one.mean
        mean = one.mean + apart * (other.count / count)
        spread = one.spread + other.spread + apart**2 * (one.count * other.count / count)
    return Statistics(
        count, np.minimum(one.minimum, other.minimum), np.maximum(one.maximum, other.maximum), mean, spread
    )


def _lists(numbers: NDArray[Any]) -> list[Any]:
    """As lists for JSON, a number as a list of one."""
    return list(np.atleast_1d(numbers).tolist())


def as_json(statistics: "FeatureStatistics") -> str:
    """``{feature: {"min", "max", "mean", "std", "count"}}``, lists in the shape of a row, as LeRobot writes them."""
    content = {name: as_lists(found) for name, found in statistics.results().items()}
    return json.dumps(content, indent=1) + "\n"


def as_lists(found: Statistics) -> dict[str, list[Any]]:
    """A feature's statistics as LeRobot names them."""
    numbers = {"min": found.minimum, "max": found.maximum, "mean": found.mean, "std": found.std}
    return {**{name: _lists(values) for name, values in numbers.items()}, "count": [found.count]}


class FeatureStatistics:
    """Statistics by feature, of what was added so far."""

    def __init__(self) -> None:
        self._features: dict[str, Statistics] = {}

    def add(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Adds (T, …) rows by feature; texts have no statistics, arrays of several axes have them by the last one."""
        for name, column in columns.items():
            rows = column.reshape(-1, column.shape[-1]) if column.ndim > 2 else column  # noqa: PLR2004 (rows of vectors)
            if rows.dtype.kind in "biuf" and rows.size:
                self._features[name] = merged(self._features.get(name), statistics_of(rows))

    def results(self) -> Mapping[str, Statistics]:
        """By feature."""
        return self._features
