"""Pieces of episodes, as people compare them and reward models are trained on them."""

import random
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import EpisodeKey
from rlhfblender_core.dataset.video import Frame
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.reading.episode import Episode
from rlhfblender_core.storage import DataRoot

#: Of a number that names a piece: its first step; the rest is its episode.
_START_BITS = 40


@dataclass(frozen=True)
class Segment:
    """Steps ``start`` to ``stop`` (exclusive) of an episode; arrays are read when they are asked for."""

    episode: Episode
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def id(self) -> str:
        """``<experiment>/<checkpoint>/<number>[<start>:<stop>]``."""
        return f"{self.episode.id}[{self.start}:{self.stop}]"

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The segment's rows of an array: see :meth:`Episode.__getitem__`."""
        return self.episode[name][self.start : self.stop]

    @property
    def observations(self) -> Any:
        """One more than there are steps: what was seen after the last one is included."""
        observations, rows = self.episode.observations, slice(self.start, self.stop + 1)
        if isinstance(observations, dict):
            return {name: column[rows] for name, column in observations.items()}
        return observations[rows]

    @property
    def actions(self) -> NDArray[Any]:
        """(length, …)."""
        return self["actions"]

    @property
    def rewards(self) -> NDArray[np.float64]:
        """(length,) float64."""
        return self["rewards"]

    @property
    def segment_return(self) -> float:
        """Undiscounted sum of the segment's rewards."""
        return float(self.rewards.sum())

    def frames(self) -> Iterator[Frame]:
        """The segment's frames, (height, width, 3) uint8 RGB."""
        for t, frame in enumerate(self.episode.frames()):
            if t >= self.start:
                yield frame
            if t + 1 == self.stop:
                return


def cut_segments(episodes: Iterable[Episode], length: int, seed: int = 0) -> Iterator[Segment]:
    """All episodes cut into pieces of one length, in random order: no step is in two of them.

    Where an episode isn't a multiple of the length, the steps that are left over lie at its start or end, by chance.
    Episodes that are shorter give none.

    Args:
        episodes: to be cut.
        length: steps of a piece.
        seed: decides places and order.

    Raises:
        InvalidParameterError: the length is no positive number.
    """
    if length < 1:
        raise InvalidParameterError(f"Segments have at least one step, not {length}.")
    chance = random.Random(seed)  # noqa: S311 (no secret)
    keys: list[tuple[EpisodeKey, DataRoot]] = []
    pieces = array("q")  # of millions of pieces some megabytes
    for episode in episodes:
        left_over = episode.episode_length % length
        offset = chance.randint(0, left_over)
        starts = range(offset, episode.episode_length - length + 1, length)
        pieces.extend(len(keys) << _START_BITS | start for start in starts)
        keys.append((episode.key, episode.root))
    chance.shuffle(pieces)
    for piece in pieces:
        start = piece & (1 << _START_BITS) - 1
        yield Segment(Episode(*keys[piece >> _START_BITS]), start, start + length)


def pair_segments(episodes: Iterable[Episode], length: int, seed: int = 0) -> Iterator[tuple[Segment, Segment]]:
    """Pairs of pieces of different episodes; each piece is in at most one pair.

    Args:
        episodes: to be cut.
        length: steps of a piece.
        seed: decides places and order.
    """
    waiting: deque[Segment] = deque()  # all of one episode: any other one's would have made a pair
    for segment in cut_segments(episodes, length, seed):
        if waiting and waiting[0].episode.key != segment.episode.key:
            yield waiting.popleft(), segment
        else:
            waiting.append(segment)
