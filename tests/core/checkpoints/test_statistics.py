"""Observation statistics are found by what a pickle is of, whatever it is called, and without running it."""

import pickle
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from rlhfblender_core.checkpoints import fetch_checkpoint, find_checkpoints
from rlhfblender_core.checkpoints.download import sha256_of
from rlhfblender_core.errors import CheckpointNotUsableError

ENV = "CartPole-v1"


@pytest.fixture(scope="module")
def statistics(tmp_path_factory) -> Path:
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    env = VecNormalize(DummyVecEnv([lambda: gym.make(ENV)]))
    env.reset()
    for _ in range(5):
        env.step(np.array([0]))
    path = tmp_path_factory.mktemp("statistics") / "made.pkl"
    env.save(str(path))
    return path


class Evil:
    ran = False

    def __reduce__(self):
        return (exec, ("import tests.core.checkpoints.test_statistics as t; t.Evil.ran = 'VecNormalize'",))


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    shutil.copy(trained("PPO").path, tmp_path / "final.zip")
    (tmp_path / "replay_buffer.pkl").write_bytes(pickle.dumps({"VecNormalize": [1, 2]}))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "torn.pkl").write_bytes(b"\x80\x04\x95VecNormalize")
    return tmp_path


def fetched(folder: Path, label: str = "final", **kwargs):
    (file,) = (found for found in find_checkpoints(str(folder), ENV) if found.label == label)
    return fetch_checkpoint(file, folder / "cache", **kwargs)


@pytest.mark.parametrize(
    "name", ["vec_normalize_stats.pkl", "norm.pkl", "final_env.pkl", "VecNormalize.PKL", "stats.pickle", "vecnormalize"]
)
def test_only_statistics_are_used_whatever_their_name(folder, statistics, name):
    shutil.copy(statistics, folder / name)
    ref = fetched(folder)
    assert ref.vecnormalize is not None
    assert ref.vecnormalize.path == str(folder / name)
    assert name in ref.notes[0]


def test_other_pickles_do_not_count_and_are_not_run(folder):
    ref = fetched(folder)
    assert ref.vecnormalize is None
    assert ref.notes == ()
    assert Evil.ran is False


def test_several_statistics_are_refused_until_one_is_named(folder, statistics):
    shutil.copy(statistics, folder / "a.pkl")
    shutil.copy(statistics, folder / "b.pkl")
    with pytest.raises(CheckpointNotUsableError, match=r"a\.pkl.*b\.pkl.*--vecnormalize FILE"):
        fetched(folder)
    ref = fetched(folder, statistics=str(folder / "b.pkl"))
    assert ref.vecnormalize is not None
    assert ref.vecnormalize.path == str(folder / "b.pkl")


def test_statistics_of_each_step_go_with_their_checkpoint(folder, statistics):
    for step in (1000, 20000):
        shutil.copy(folder / "final.zip", folder / f"ppo_{step}.zip")
        content = statistics.read_bytes()
        (folder / f"stats_{step}.pkl").write_bytes(content)
    ref = fetched(folder, "20000")
    assert ref.vecnormalize is not None
    assert Path(ref.vecnormalize.path).name == "stats_20000.pkl"
    with pytest.raises(CheckpointNotUsableError, match="--vecnormalize"):
        fetched(folder)
    named = fetched(folder, "1000", statistics=str(folder / "stats_{step}.pkl"))
    assert named.vecnormalize is not None
    assert named.vecnormalize.sha256 == sha256_of(statistics)


@pytest.mark.parametrize("name", ["vecnorm_100.pkl", "100.pkl", "stats-step=100.pickle"])
@pytest.mark.parametrize("label", ["200", "final"])
def test_statistics_of_another_checkpoint_are_not_taken_for_one_s_own(folder, statistics, name, label):
    for step in (100, 200):
        shutil.copy(folder / "final.zip", folder / f"m_{step}.zip")
    shutil.copy(statistics, folder / name)
    assert Path(fetched(folder, "100").vecnormalize.path).name == name
    with pytest.raises(CheckpointNotUsableError, match=r"another checkpoint's.*--vecnormalize FILE"):
        fetched(folder, label)
    assert fetched(folder, label, statistics=str(folder / name)).vecnormalize is not None


def test_statistics_of_other_steps_are_not_taken_though_their_checkpoint_is_gone(folder, statistics):
    (folder / "final.zip").rename(folder / "ppo_20000_steps.zip")
    shutil.copy(statistics, folder / "norm_10000_steps.pkl")
    with pytest.raises(CheckpointNotUsableError, match="another checkpoint's"):
        fetched(folder, "20000")


@pytest.mark.parametrize("name", ["seed_3_norm.pkl", "norm_v2.pkl", "norm_2024.pkl"])
def test_numbers_that_are_no_checkpoint_s_say_nothing(folder, statistics, name):
    for step in (1000, 2000):
        shutil.copy(folder / "final.zip", folder / f"ppo_2024_{step}.zip")
    shutil.copy(statistics, folder / name)
    for label in ("1000", "2000"):
        assert Path(fetched(folder, label).vecnormalize.path).name == name


def test_known_names_come_first(folder, statistics):
    for name in ("vecnormalize.pkl", "copy.pkl"):
        shutil.copy(statistics, folder / name)
    ref = fetched(folder)
    assert ref.vecnormalize is not None
    assert Path(ref.vecnormalize.path).name == "vecnormalize.pkl"
    assert ref.notes == ()


def test_missing_statistics_file_is_named(folder):
    with pytest.raises(CheckpointNotUsableError, match=r"gone\.pkl"):
        fetched(folder, statistics=str(folder / "gone.pkl"))
