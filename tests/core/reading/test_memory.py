"""Memory is flat over 10,000 episodes, whatever is done with them one after the other."""

import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.clone_episodes import clone_episodes
from rlhfblender_core import open_data_set
from rlhfblender_core.reading.data_set import DataSet

pytestmark = pytest.mark.soak
SIZES = 1_000, 10_000

USES: dict[str, Callable[[DataSet], Any]] = {
    "arrays of each": lambda data: sum(episode.rewards.sum() for episode in data),
    "rows": lambda data: sum(row["rewards"] for row in data.steps()),
    "a condition": lambda data: len(data.where("return > 1 and length < 500")),
    "segments": lambda data: sum(segment.segment_return for segment in itertools.islice(data.segments(length=5), 500)),
    "pairs": lambda data: sum(1 for _ in data.segment_pairs(length=5)),
    "windows": lambda data: sum(float(window["rewards"].sum()) for window in _windows(data)),
}


def _windows(data: DataSet) -> Any:
    windows = data.torch(length=10, keys=("obs", "rewards"))
    return (windows[place] for place in range(0, len(windows), 50))


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Data roots by their number of episodes."""
    folder = tmp_path_factory.mktemp("clones")
    return {size: str(clone_episodes(folder / str(size), episodes=size, render=False).root) for size in SIZES}


@pytest.mark.parametrize("use", USES)
@pytest.mark.timeout(1200)
def test_memory_is_flat(clones: dict[int, str], use: str) -> None:
    pytest.importorskip("torch")

    def peak(size: int) -> int:
        data = open_data_set(clones[size])
        assert len(data) == size
        USES[use](open_data_set(clones[SIZES[0]]))  # what is loaded on first use doesn't count
        tracemalloc.start()
        USES[use](data)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = map(peak, SIZES)
    # A listing's names, where the pieces are, what a condition asks for: some hundred bytes for an episode.
    assert many < few + (SIZES[1] - SIZES[0]) * 1000, (few, many)
