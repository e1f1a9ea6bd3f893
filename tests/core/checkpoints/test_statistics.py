"""Observation statistics are found by what a pickle is of, whatever it is called, and without running it."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation

from rlhfblender_core.checkpoints import fetch_checkpoint, find_checkpoints
from rlhfblender_core.checkpoints.download import sha256_of
from rlhfblender_core.errors import CheckpointNotUsableError

ENV = "CartPole-v1"


@pytest.fixture(scope="module")
def normalised(tmp_path_factory) -> Path:
    """A folder with a model that was trained in a VecNormalize, and its statistics."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    path = tmp_path_factory.mktemp("normalised")
    env = VecNormalize(DummyVecEnv([lambda: gym.make(ENV)]))
    PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu").learn(16).save(path / "m.zip")
    env.save(str(path / "made.pkl"))
    return path


@pytest.fixture
def statistics(normalised) -> Path:
    return normalised / "made.pkl"


class Evil:
    ran = False

    def __reduce__(self):
        return (exec, ("import tests.core.checkpoints.test_statistics as t; t.Evil.ran = 'VecNormalize'",))


@pytest.fixture
def folder(normalised, tmp_path) -> Path:
    shutil.copy(normalised / "m.zip", tmp_path / "final.zip")
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


def test_other_pickles_do_not_count_and_are_not_run(folder, trained):
    shutil.copy(trained("PPO").path, folder / "final.zip")
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
        fetched(folder)  # trained for 16 steps
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


@pytest.mark.parametrize("place", ["stats", "../vec_normalize", "../env_statistics"])
def test_statistics_in_a_folder_called_after_them_are_found(folder, statistics, place):
    inner = folder / "models"
    inner.mkdir()
    (folder / "final.zip").rename(inner / "final.zip")
    (inner / place).mkdir()
    shutil.copy(statistics, inner / place / "vecnormalize.pkl")
    ref = fetched(inner)
    assert Path(ref.vecnormalize.path).resolve() == (inner / place / "vecnormalize.pkl").resolve()
    assert "vecnormalize.pkl" in ref.notes[0]


def test_those_of_an_agent_that_does_not_tell_of_them_are_found_alike(folder, statistics, trained):
    shutil.copy(trained("SAC").path, folder / "final.zip")
    (folder / "stats").mkdir()
    shutil.copy(statistics, folder / "stats" / "vecnormalize.pkl")
    assert fetched(folder).vecnormalize is not None


@pytest.mark.parametrize("other", ["ppo_norm", "statesman", "norm"])
def test_those_of_an_agent_in_another_folder_are_not(folder, statistics, normalised, other):
    inner = folder / "models"
    inner.mkdir()
    (folder / "final.zip").rename(inner / "final.zip")
    (folder / other).mkdir()
    shutil.copy(statistics, folder / other)
    shutil.copy(normalised / "m.zip", folder / other)
    with pytest.raises(CheckpointNotUsableError, match=r"--vecnormalize FILE.*--vecnormalize none"):
        fetched(inner)


def test_an_agent_trained_in_a_vecnormalize_does_not_act_without_its_statistics(folder):
    with pytest.raises(CheckpointNotUsableError, match=r"--vecnormalize FILE.*--vecnormalize none") as caught:
        fetched(folder)
    assert "\n" not in str(caught.value)
    assert fetched(folder, statistics="none").vecnormalize is None  # only rewards were normalised, says the user


@pytest.mark.parametrize(("factor", "norm_obs"), [(1000, False), (1000, True), (None, False)])
def test_an_agent_whose_rewards_alone_can_have_been_normalised_needs_no_statistics(
    factor: int | None, norm_obs: bool, tmp_path: Path
) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    def make() -> gym.Env[Any, Any]:
        if factor is None:
            return gym.make("FrozenLake-v1")  # whole numbers
        everything = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        return TransformObservation(gym.make(ENV), lambda seen: seen * np.float32(factor), everything)

    env = VecNormalize(DummyVecEnv([make]), norm_obs=norm_obs)
    PPO("MlpPolicy", env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu").learn(16).save(
        tmp_path / "final"
    )
    if norm_obs:
        with pytest.raises(CheckpointNotUsableError, match="--vecnormalize none"):
            fetched(tmp_path)
    else:
        assert fetched(tmp_path).vecnormalize is None


def test_best_and_final_have_the_statistics_of_their_own_number_of_steps(folder, statistics):
    shutil.copy(folder / "final.zip", folder / "best_model.zip")
    for step in (8, 16, 24):
        shutil.copy(statistics, folder / f"ppo_vecnormalize_{step}_steps.pkl")
    for label in ("best", "final"):
        ref = fetched(folder, label)
        assert Path(ref.vecnormalize.path).name == "ppo_vecnormalize_16_steps.pkl"
        assert ref.notes == (f"Checkpoint {label} sees observations normalised by 'ppo_vecnormalize_16_steps.pkl'",)


def test_statistics_beside_an_agent_that_was_trained_without_are_told(folder, statistics, trained):
    shutil.copy(trained("PPO").path, folder / "final.zip")
    shutil.copy(statistics, folder / "vecnormalize.pkl")
    ref = fetched(folder)
    assert ref.vecnormalize is not None
    assert "trained without" in ref.notes[0]
    assert "--vecnormalize none" in ref.notes[0]
    assert fetched(folder, statistics="none").vecnormalize is None
