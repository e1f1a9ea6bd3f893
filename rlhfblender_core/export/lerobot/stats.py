"""Statistics as LeRobot has them: of each episode, and of all, with quantiles.

Quantiles of all episodes are the mean of the episodes' own, weighted by their rows, as LeRobot aggregates them
(``lerobot.datasets.compute_stats``). Arrays of more than one axis have them by their last one; pictures by channel,
between 0 and 1, of some pictures per episode: as many as were added.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.export.statistics import Statistics, as_lists, merged, statistics_of

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_BRIGHTEST = 255.0


class LeRobotStatistics:
    """Statistics of all episodes that were added."""

    def __init__(self) -> None:
        self._features: dict[str, Statistics] = {}
        self._quantiles: dict[str, NDArray[np.float64]] = {}
        self._pictures: Counter[str] = Counter()

    def add(self, features: Mapping[str, NDArray[Any]], pictures: Mapping[str, NDArray[np.uint8]]) -> dict[str, Any]:
        """Adds an episode; returns its own statistics, ``{feature: {"min": …}}``.

        Args:
            features: (T, …) numbers or flags.
            pictures: some of the episode's, (n, height, width, 3).
        """
        own = {}
        for name, rows in features.items():
            own[name] = self._add(name, rows.reshape(-1, rows.shape[-1] if rows.ndim > 1 else 1), len(rows))
        for name, shown in pictures.items():
            found = self._add(name, shown.reshape(-1, shown.shape[-1]) / _BRIGHTEST, len(shown))
            own[name] = _by_channel(found)
            self._pictures[name] += len(shown)
        return own

    def _add(self, name: str, rows: NDArray[Any], count: int) -> dict[str, list[Any]]:
        found = statistics_of(rows)
        with np.errstate(invalid="ignore"):
            quantiles = np.quantile(rows.astype(np.float64), list(_QUANTILES.values()), axis=0)
        weighted = self._quantiles.get(name, np.zeros_like(quantiles))
        self._quantiles[name] = weighted + quantiles * found.count
        self._features[name] = merged(self._features.get(name), found)
        return {**as_lists(found), **dict(zip(_QUANTILES, quantiles.tolist(), strict=True)), "count": [count]}

    def results(self, steps: int) -> dict[str, Any]:
        """Of all episodes, as ``stats.json`` has them.

        Args:
            steps: how many there are.
        """
        results = {}
        for name, found in self._features.items():
            quantiles = (self._quantiles[name] / found.count).tolist()
            count = self._pictures.get(name, steps)
            own = {**as_lists(found), **dict(zip(_QUANTILES, quantiles, strict=True)), "count": [count]}
            results[name] = _by_channel(own) if name in self._pictures else own
        return results


def _by_channel(found: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """``(3,)`` as ``(3, 1, 1)``."""
    return {name: values if name == "count" else [[[value]] for value in values] for name, values in found.items()}
