"""Windows of episodes for PyTorch, padded to one length. Imports torch."""

import bisect
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from rlhfblender_core.argument_types import place_in
from rlhfblender_core.dataset.layout import EpisodeKey
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.reading.episode import Episode, has_rows

if TYPE_CHECKING:
    from rlhfblender_core.reading.data_set import DataSet


class Windows(Dataset[dict[str, torch.Tensor]]):
    """Windows of ``length`` steps, each a dictionary of tensors (length, …), padded with zeros at an episode's end.

    ``is_pad`` (length,) bool tells which steps are padding. The episode that was read last is kept, so that windows in
    order read each file once.

    Args:
        episodes: of which data set.
        length: steps of a window.
        stride: steps from one window's start to the next.
        keys: arrays by their names in the ``.npz``.

    Raises:
        InvalidParameterError: length or stride is no positive number, or no array is named. Reading a window raises it
            where an episode has no such array of numbers with a row per step.
    """

    def __init__(self, episodes: "DataSet", length: int, stride: int, keys: Sequence[str]) -> None:
        if length < 1 or stride < 1:
            raise InvalidParameterError(f"Windows have a length and a stride of 1 or more, not {length} and {stride}.")
        if not keys:
            raise InvalidParameterError("Windows have at least one array: name it in keys.")
        self._root, self._length, self._stride, self._keys = episodes.root, length, stride, tuple(keys)
        self._checkpoints = {key: place for place, key in enumerate(episodes.keys)}
        self._names = list(episodes.keys)
        # Numbers only: a data set of a million episodes takes a few megabytes.
        self._places, self._numbers, self._ends = array("i"), array("i"), array("q")
        end = 0
        for episode in episodes:
            end += 1 + max(0, episode.episode_length - length + stride - 1) // stride
            self._places.append(self._checkpoints[_checkpoint(episode)])
            self._numbers.append(episode.number)
            self._ends.append(end)
        self._last: tuple[int, dict[str, np.ndarray[Any, Any]]] | None = None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        index = place_in(index, len(self), "window")
        place = bisect.bisect_right(self._ends, index)
        start = (index - (self._ends[place - 1] if place else 0)) * self._stride
        window = {name: column[start : start + self._length] for name, column in self._columns(place).items()}
        steps = len(next(iter(window.values())))
        tensors = {name: _padded(rows, self._length) for name, rows in window.items()}
        return {**tensors, "is_pad": torch.arange(self._length) >= steps}

    def _columns(self, place: int) -> dict[str, np.ndarray[Any, Any]]:
        if self._last is None or self._last[0] != place:
            key = self._names[self._places[place]]
            episode = Episode(EpisodeKey(key.experiment, key.checkpoint, self._numbers[place]), self._root)
            with episode.open() as arrays:
                absent = [name for name in self._keys if name not in arrays]
                if absent:
                    raise InvalidParameterError(
                        f"Episode {episode.id} has no {absent[0]!r}; it has {', '.join(arrays)}."
                    )
                columns = {name: arrays[name] for name in self._keys}
            for name, column in columns.items():
                if not has_rows(name) or column.dtype.kind not in "biuf":
                    raise InvalidParameterError(f"Windows hold numbers with a row per step, which {name!r} isn't.")
            self._last = place, columns
        return self._last[1]


def _checkpoint(episode: Episode) -> Any:
    from rlhfblender_core.dataset.layout import CheckpointKey

    return CheckpointKey(episode.experiment, episode.checkpoint)


def _padded(rows: np.ndarray[Any, Any], length: int) -> torch.Tensor:
    padded = np.zeros((length, *rows.shape[1:]), rows.dtype.newbyteorder("="))
    padded[: len(rows)] = rows
    return torch.from_numpy(padded)
