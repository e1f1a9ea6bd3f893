"""How large shards are: about ten seconds of work, by what episodes took before. Their bytes don't depend on it."""

from collections.abc import Iterator, Sequence

#: Seconds of work in a shard. Less, and what each costs in tasks and transactions shows; more, and a dying worker
#: loses much, and nothing is published for long.
_SHARD_S = 10.0
#: The last ones are smaller, so that workers finish together, but no smaller than that.
_LEAST_S = 1.0
#: Shards get no larger, however short the episodes: their files wait on the disk to be published.
MAX_SHARD = 1000
#: Shards per worker still to come when a shard is cut.
_SHARDS_AHEAD = 2


class Pace:
    """How fast a run makes episodes, as far as it has been measured.

    Args:
        workers: how many shards are worked on at once.
        episodes: how many have to be made.
    """

    def __init__(self, workers: int, episodes: int) -> None:
        self._workers = max(1, workers)
        self._left = episodes
        self._seconds = 0.0
        self._episodes = 0.0

    def record(self, episodes: int, seconds: float) -> None:
        """Takes a shard into account, of so many episodes; those before it count half by then.

        The first ones tell more of the time in which libraries are loaded.
        """
        if episodes and seconds:  # of what failed it isn't known
            self._seconds = self._seconds / 2 + seconds
            self._episodes = self._episodes / 2 + episodes

    def next_size(self) -> int:
        """How many episodes the next shard should have; one while nothing is known."""
        if not self._episodes:
            return 1
        fair = self._left / (_SHARDS_AHEAD * self._workers)
        each = max(self._seconds / self._episodes, 1e-6)
        return max(1, min(MAX_SHARD, int(min(max(fair, _LEAST_S / each), _SHARD_S / each))))

    def count_off(self, episodes: int) -> None:
        """Notes that a shard of so many episodes was cut."""
        self._left -= episodes


def cut_shards(episodes: Sequence[int], pace: Pace) -> Iterator[tuple[int, ...]]:
    """The episodes, cut into runs of consecutive work, each when it is asked for.

    Args:
        episodes: numbers, ascending.
        pace: of the run.
    """
    start = 0
    while start < len(episodes):
        part = tuple(episodes[start : start + pace.next_size()])
        pace.count_off(len(part))
        yield part
        start += len(part)
