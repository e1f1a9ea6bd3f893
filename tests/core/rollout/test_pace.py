"""How work is cut: in time, not in numbers; every episode once, in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfblender_core.rollout.pace import MAX_SHARD, Pace, cut_shards


def cut(episodes: int, seconds_each: float, workers: int = 2) -> list[tuple[int, ...]]:
    """The shards of a run whose episodes all take so long."""
    pace, shards = Pace(workers, episodes), []
    for shard in cut_shards(range(episodes), pace):
        pace.record(len(shard), len(shard) * seconds_each)
        shards.append(shard)
    return shards


@given(
    st.lists(st.integers(0, 10_000), unique=True).map(sorted),
    st.integers(0, 64),
    st.lists(st.floats(0, 100), min_size=1),
)
def test_shards_are_the_episodes_in_order_and_never_too_large(
    episodes: list[int], workers: int, seconds: list[float]
) -> None:
    pace, shards = Pace(workers, len(episodes)), []
    for shard in cut_shards(episodes, pace):
        pace.record(len(shard), seconds[len(shards) % len(seconds)])
        shards.append(shard)
    assert [episode for shard in shards for episode in shard] == episodes
    assert all(1 <= len(shard) <= MAX_SHARD for shard in shards)


@pytest.mark.parametrize("seconds_each", [0.002, 0.05, 1.0, 30.0])
def test_a_shard_is_ten_seconds_of_work_or_one_episode(seconds_each: float) -> None:
    shards = cut(20_000, seconds_each)
    assert max(len(shard) for shard in shards) == max(1, min(MAX_SHARD, round(10 / seconds_each)))


def test_many_short_episodes_are_few_shards() -> None:
    assert len(cut(2000, 0.003)) <= 12


def test_at_the_end_shards_are_smaller_so_that_workers_finish_together() -> None:
    *_, last = cut(1000, 0.1, workers=4)
    assert len(last) <= 10


def test_before_anything_is_measured_every_worker_gets_work() -> None:
    assert list(cut_shards(range(4), Pace(4, 4))) == [(0,), (1,), (2,), (3,)]


def test_a_slow_start_is_soon_forgotten() -> None:
    pace = Pace(2, 100_000)
    pace.record(1, 5.0)  # libraries were loaded
    sizes = []
    for _ in range(4):
        sizes.append(pace.next_size())
        pace.record(sizes[-1], sizes[-1] * 0.02)
    assert sizes[0] == 2
    assert sizes[-1] >= 200
