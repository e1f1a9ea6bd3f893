"""What an environment gets for a policy's action is what Stable-Baselines3 gives it, also in spaces that are odd."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from rlhfblender_core.checkpoints import CheckpointRef, check_spaces, fetch_checkpoint, find_checkpoints, load_agent
from rlhfblender_core.errors import SpacesDifferError
from rlhfblender_core.wrappers import AgentSettings
from tests.core.checkpoints.test_spaces_as_trained import BOX, OFF, SMALL, Sampler, samples

WHOLE = spaces.Box(0, 5, (2,), np.int32)
WIDE = spaces.Box(-2, 3, (2,), np.float32)
NARROW = spaces.Box(-1, 1, (2,), np.float32)
MATRIX = spaces.Box(-1, 1, (3, 4), np.float32)


def saved(algorithm: str, env: Any, folder: Path, policy: str = "MlpPolicy") -> tuple[Any, CheckpointRef]:
    """Stable-Baselines3's model, which acts with more than tiny numbers, and ours of the same file."""
    import torch

    kwargs = SMALL if algorithm == "PPO" else OFF
    model = getattr(stable_baselines3, algorithm)(policy, env, **kwargs)
    model.learn(20)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.mul_(3.0)
    model.save(folder / "model.zip")
    file = find_checkpoints(str(folder / "model.zip"), "Sampler-v0")[0]
    return model, fetch_checkpoint(file, folder / "cache")


def loaded(ref: CheckpointRef, observed: spaces.Space[Any], acted: spaces.Space[Any]) -> tuple[Any, tuple[str, ...]]:
    notes = check_spaces(ref, observed, acted)
    policy = load_agent(ref, observed, acted, deterministic=True)
    policy.reset(0)
    return policy, notes


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
def test_whole_numbers_get_the_fractions_that_they_got_in_training(algorithm: str, tmp_path: Path) -> None:
    model, ref = saved(algorithm, Sampler(BOX, WHOLE), tmp_path)
    policy, notes = loaded(ref, BOX, WHOLE)
    for observation in samples(BOX, 20):
        expected, _ = model.predict(observation, deterministic=True)
        assert np.array_equal(policy.act(observation).action, expected)
    assert len(notes) == 1
    assert "fractions" in notes[0]


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
@pytest.mark.parametrize(("trained", "acted"), [(NARROW, WIDE), (WIDE, NARROW)])
def test_an_agent_acts_in_the_bounds_that_it_was_trained_in(
    algorithm: str, trained: spaces.Box, acted: spaces.Box, tmp_path: Path
) -> None:
    model, ref = saved(algorithm, Sampler(BOX, trained), tmp_path)
    policy, notes = loaded(ref, BOX, acted)
    for observation in samples(BOX, 20):
        expected, _ = model.predict(observation, deterministic=True)
        action = policy.act(observation).action
        np.testing.assert_allclose(action, np.clip(expected, acted.low, acted.high), rtol=1e-6)
        assert acted.contains(action)
    assert len(notes) == 1
    assert f"acts in {trained}" in notes[0]
    assert loaded(ref, BOX, trained)[1] == ()


@pytest.mark.parametrize(
    ("observed", "order"),
    [
        (MATRIX, "first"),
        (MATRIX, "last"),
        (MATRIX, None),
        (spaces.Dict([("z", MATRIX), ("a", BOX)]), {"z": "first", "a": "last"}),
    ],
    ids=["first", "last", "none", "dict"],
)
def test_frames_are_stacked_where_they_were_in_training(
    observed: spaces.Space[Any], order: Any, tmp_path: Path
) -> None:
    env = VecFrameStack(DummyVecEnv([lambda: Sampler(observed, WIDE)]), 3, channels_order=order)
    model, ref = saved("PPO", env, tmp_path, "MultiInputPolicy" if isinstance(observed, spaces.Dict) else "MlpPolicy")
    ref = dataclasses.replace(ref, settings=AgentSettings(frame_stack=3))
    policy, _ = loaded(ref, observed, WIDE)
    raw, other = (Sampler(copy.deepcopy(observed), WIDE) for _ in range(2))
    raw.observation_space.seed(9)
    other.observation_space.seed(9)
    stacked = VecFrameStack(DummyVecEnv([lambda: other]), 3, channels_order=order)
    seen = stacked.reset()
    observation, _ = raw.reset()
    for _ in range(4):
        expected, _ = model.predict(seen, deterministic=True)
        assert np.array_equal(policy.act(observation).action, expected[0])
        seen, observation = stacked.step(expected)[0], raw.step(expected[0])[0]


def test_numbers_that_were_no_image_in_training_are_not_divided_by_255(tmp_path: Path) -> None:
    levels, image = spaces.Box(0, 9, (3, 5, 6), np.uint8), spaces.Box(0, 255, (3, 5, 6), np.uint8)
    for trained, other in ((levels, image), (image, levels)):
        _, ref = saved("PPO", Sampler(trained, WIDE), tmp_path)
        loaded(ref, trained, WIDE)
        with pytest.raises(SpacesDifferError, match="narrower than 0 to 255"):
            loaded(ref, other, WIDE)
