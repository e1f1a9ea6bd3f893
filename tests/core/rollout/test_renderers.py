"""Every renderer is used and freed in the thread that made it: graphics contexts print pages of errors otherwise."""

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.environments import EnvironmentSpec, describe_environment
from rlhfblender_core.rollout.agents import RandomAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, check_agent, close_session, roll_out_shard
from rlhfblender_core.workers.pool import Workers

HELD = "tests.support.environments_for_tests.held"


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_renderer_is_freed_in_the_thread_that_made_it(workers: int, fails: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    spec = EnvironmentSpec("Bound-v0", f"{HELD}:BoundToAThread", kwargs={"log": str(log), "fails": fails})
    settings = RolloutSettings(spec, RandomAgent(), RolloutOptions(fps=20.0))
    shards = [Shard(CheckpointKey("exp", "random"), settings, episodes) for episodes in ((0, 1, 2), (3, 4))]
    with Workers(workers, tmp_path) as pool, ThreadPoolExecutor(2) as threads:
        staged = list(threads.map(lambda shard: pool.run(roll_out_shard, shard, tmp_path), shards))
        pool.run(close_session)
    assert [len(part.failures) for part in staged] == ([3, 2] if fails else [0, 0])
    lines = log.read_text().splitlines()
    assert [line for line in lines if "elsewhere" in line] == []
    assert lines.count("freed") == lines.count("made") >= 5


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("cycle", ["env", "renderer"])
def test_a_renderer_in_a_cycle_is_freed_before_another_thread_looks_for_garbage(
    cycle: str, fails: bool, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    kwargs = {"log": str(log), "cycle": cycle, "fails": fails}
    spec = EnvironmentSpec("Cyclic-v0", f"{HELD}:BoundInACycle", kwargs=kwargs)
    settings = RolloutSettings(spec, RandomAgent(), RolloutOptions(fps=20.0))
    with Workers(0, tmp_path) as pool:
        pool.run(describe_environment, spec, render=True, try_out=True)
        pool.run(check_agent, settings)
        pool.run(roll_out_shard, Shard(CheckpointKey("exp", "random"), settings, (0, 1, 2)), tmp_path)
        gc.collect()  # in this thread
        pool.run(close_session)
    lines = log.read_text().splitlines()
    assert [line for line in lines if "elsewhere" in line] == []
    assert lines.count("freed") == lines.count("made") >= 6


def test_what_outlives_every_environment_is_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = EnvironmentSpec("Sharing-v0", f"{HELD}:SharingATable")
    settings = RolloutSettings(spec, RandomAgent(), RolloutOptions(fps=20.0))
    collected = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(1))
    staged = roll_out_shard(Shard(CheckpointKey("exp", "random"), settings, tuple(range(5))), tmp_path)
    close_session()
    assert (staged.failures, len(collected)) == ({}, 1)
