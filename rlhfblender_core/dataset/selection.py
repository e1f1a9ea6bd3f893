"""Which episodes a command is about: ``--episodes 3,5-9`` and ``--where 'return > 100'``, both or either."""

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rlhfblender_core.dataset.where import Where, parse_where
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.registry import EpisodeRecord

_PART = re.compile(r"\s*(\d{1,18})\s*(?:-\s*(\d{1,18})\s*)?", re.ASCII)


@dataclass(frozen=True)
class EpisodeNumbers:
    """A set of episodes' numbers as spans, so that ``0-999999999`` is as small as ``7``.

    Attributes:
        text: as it was given.
        spans: first and last number of each, ascending and apart.
    """

    text: str
    spans: tuple[tuple[int, int], ...]

    def __contains__(self, number: object) -> bool:
        if not isinstance(number, int):
            return False
        place = bisect_right(self.spans, number, key=lambda span: span[0])
        return place > 0 and number <= self.spans[place - 1][1]

    def __iter__(self) -> Iterator[int]:
        """Them all, ascending."""
        for first, last in self.spans:
            yield from range(first, last + 1)

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(last + 1 - first for first, last in self.spans)


@dataclass(frozen=True)
class EpisodeSelection:
    """The episodes that a command is about: those that meet all that was asked for.

    It survives pickling: what was given is read again on the other side.

    Attributes:
        episodes: their numbers; None for all.
        where: a condition they meet; None for none.
    """

    episodes: EpisodeNumbers | None = None
    where: Where | None = None

    def __reduce__(self) -> tuple[object, tuple[str | None, str | None]]:
        """A condition is made of functions, which don't travel between processes; its text does."""
        return parse_selection, (self.episodes.text if self.episodes else None, self.where.text if self.where else None)

    @property
    def is_everything(self) -> bool:
        """Whether nothing was asked for, so that every episode is chosen."""
        return self.episodes is None and self.where is None

    def __str__(self) -> str:
        """The flags that ask for it."""
        episodes = f"--episodes {self.episodes.text}" if self.episodes else None
        where = f"--where {self.where.text!r}" if self.where else None
        return " ".join(filter(None, [episodes, where]))

    def may_have(self, number: int) -> bool:
        """Whether an episode of that number may be chosen, by all that a number tells."""
        return self.episodes is None or number in self.episodes

    def matches(self, episode: EpisodeRecord) -> bool:
        """Whether the episode is chosen."""
        return self.may_have(episode.number) and (self.where is None or self.where.matches(episode))


#: Every episode.
EVERYTHING = EpisodeSelection()


def parse_selection(episodes: str | None = None, where: str | None = None) -> EpisodeSelection:
    """The selection that ``--episodes`` and ``--where`` ask for.

    Args:
        episodes: numbers and spans: ``3,5-9``; None for all.
        where: a condition, see :mod:`rlhfblender_core.dataset.where`; None for none.

    Raises:
        InvalidParameterError: one of them can't be read.
    """
    return EpisodeSelection(
        None if episodes is None else parse_episode_numbers(episodes), None if where is None else parse_where(where)
    )


def parse_episode_numbers(text: str) -> EpisodeNumbers:
    """The numbers that a text such as ``3,5-9`` names; both ends of a span belong to it.

    Raises:
        InvalidParameterError: it names none, or something else.
    """
    spans = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise InvalidParameterError(f"--episodes {text[:100]!r}: give numbers and spans of them, e.g. 3,5-9.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InvalidParameterError(f"--episodes {text[:100]!r}: the span {part.strip()} ends before it begins.")
        spans.append((first, last))
    return EpisodeNumbers(text, _merged(sorted(spans)))


def _merged(spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in spans:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
