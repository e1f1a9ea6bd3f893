"""Which workers and which folder a task of a run finds in this process."""

import contextlib
import dataclasses
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import RUNS, CheckpointKey
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.errors import EnvironmentNotUsableError, RunStoppedError, WorkerLostError
from rlhfblender_core.rollout.agents import RandomAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.seeding import episode_seed
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.runs.sharing import Making, in_hand_of_others, taken_in_hand
from rlhfblender_core.storage import open_data_root
from rlhfblender_core.workers.pool import Workers
from tasks.config import Locations
from tasks.engines import engine_of, open_engine
from tasks.rollout import ShardTarget, begin_episodes

MAKING = Making("E", {"random": "a request"})


def test_a_task_that_comes_after_its_run_is_over_does_no_work(tmp_path: Path) -> None:
    """It must not take itself for one on a cluster's machine, which nobody could stop any more."""
    root = open_data_root(str(tmp_path / "data"))
    with open_engine("run", root, Workers(0, tmp_path), MAKING) as engine, engine_of("run", root, MAKING) as found:
        assert found is engine
    with pytest.raises(RunStoppedError), engine_of("run", root, MAKING):
        pass
    with engine_of("a run of another machine", root, MAKING) as own:
        assert own is not engine
        assert own.staging.parent.name == RUNS


SPEC = EnvironmentSpec("Counting-v0", entry_point="tests.support.environments_for_tests.counting:Counting")
SETTINGS = RolloutSettings(SPEC, RandomAgent(), RolloutOptions(render=False, fps=20))
SHARD = Shard(CheckpointKey("E", "random"), SETTINGS, (0, 1, 2))


@pytest.mark.parametrize("processes", [0, 2])
def test_what_was_begun_is_found_by_the_tasks_once(processes: int, tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path / "data"))
    with open_engine("run", root, Workers(processes, tmp_path), MAKING) as engine:
        engine.begin(SHARD, (0, 2), contextlib.ExitStack())
        engine.check(SETTINGS)
        begun = engine.take_begun(SHARD)
        assert begun is not None
        assert [episode.manifest.episode for episode in begun.work.result().episodes] == [0, 2]
        assert engine.take_begun(SHARD) is None
        assert engine.take_begun(dataclasses.replace(SHARD, episodes=(3,))) is None


def test_what_was_begun_in_a_worker_that_died_is_done_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENTS_FOR_TESTS_EVENTS", f"kill@{episode_seed(0, 1)}:2:{tmp_path / 'killed'}")
    root = open_data_root(str(tmp_path / "data"))
    with open_engine("run", root, Workers(1, tmp_path), MAKING) as engine:
        engine.begin(SHARD, SHARD.episodes, contextlib.ExitStack())
        engine.check(SETTINGS)
        begun = engine.take_begun(SHARD)
        assert begun is not None
        with pytest.raises(WorkerLostError):
            begun.work.result()
        assert engine.take_begun(SHARD) is None
        assert len(engine.roll_out(SHARD, SHARD.episodes).episodes) == 3


def test_what_cannot_be_begun_is_said_by_the_check(tmp_path: Path) -> None:
    wrong = dataclasses.replace(SETTINGS, environment=dataclasses.replace(SPEC, kwargs={"nonsense": 1}))
    root = open_data_root(str(tmp_path / "data"))
    with open_engine("run", root, Workers(1, tmp_path), MAKING) as engine:
        engine.begin(dataclasses.replace(SHARD, settings=wrong), SHARD.episodes, contextlib.ExitStack())
        with pytest.raises(EnvironmentNotUsableError, match="nonsense"):
            engine.check(wrong)


def test_what_was_begun_is_in_hand_until_its_task_or_the_run_is_over_and_what_others_have_is_left_to_them(
    tmp_path: Path,
) -> None:
    locations = Locations(str(tmp_path / "data"), f"sqlite:///{tmp_path / 'data' / 'r.db'}")
    root = locations.open_root()
    target = ShardTarget(locations, "run", SHARD.episodes, leave=True)
    with open_run(root, "E") as other, taken_in_hand(root, other, SHARD.key, (1,), leave=False):
        with open_engine("run", root, Workers(0, tmp_path), MAKING) as engine:
            begin_episodes(SHARD, target)
            assert in_hand_of_others(root, SHARD.key, SHARD.episodes, other) == {0, 2}
            begun = engine.take_begun(SHARD)
            assert begun is not None
            with begun.hand:
                assert [episode.manifest.episode for episode in begun.work.result().episodes] == [0, 2]
            assert not in_hand_of_others(root, SHARD.key, SHARD.episodes, other)
            begin_episodes(SHARD, target)
            assert in_hand_of_others(root, SHARD.key, SHARD.episodes, other) == {0, 2}
        assert not in_hand_of_others(root, SHARD.key, SHARD.episodes, other)
