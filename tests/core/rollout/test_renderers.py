"""Every renderer is used and freed in the thread that made it: graphics contexts print pages of errors otherwise."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.rollout.agents import RandomAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, close_session, roll_out_shard
from rlhfblender_core.workers.pool import Workers

ENTRY_POINT = "tests.support.environments_for_tests.counting:BoundToAThread"


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_renderer_is_freed_in_the_thread_that_made_it(workers: int, fails: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    spec = EnvironmentSpec("Bound-v0", ENTRY_POINT, kwargs={"log": str(log), "fails": fails})
    settings = RolloutSettings(spec, RandomAgent(), RolloutOptions(fps=20.0))
    shards = [Shard(CheckpointKey("exp", "random"), settings, episodes) for episodes in ((0, 1, 2), (3, 4))]
    with Workers(workers, tmp_path) as pool, ThreadPoolExecutor(2) as threads:
        staged = list(threads.map(lambda shard: pool.run(roll_out_shard, shard, tmp_path), shards))
        pool.run(close_session)
    assert [len(part.failures) for part in staged] == ([3, 2] if fails else [0, 0])
    lines = log.read_text().splitlines()
    assert [line for line in lines if "elsewhere" in line] == []
    assert lines.count("freed") == lines.count("made") >= 5
