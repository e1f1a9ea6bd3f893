"""What a policy sees equals what Stable-Baselines3's vectorised wrappers show it."""

import copy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.errors import SpacesDifferError
from rlhfblender_core.policies.observations import ObservationPipeline
from rlhfblender_core.untrusted.vecnormalize import Moments, ObservationStatistics, read_statistics

BOX = spaces.Box(-3, 3, (4,), np.float64)
IMAGE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
FIRST = spaces.Box(0, 255, (1, 36, 40), np.uint8)
MIXED = spaces.Dict({"image": IMAGE, "vector": spaces.Box(-3, 3, (2,), np.float32)})


class Sampler(gym.Env):
    """Observations of a space from the seed; episodes of 4 steps."""

    action_space = spaces.Discrete(2)

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = copy.deepcopy(space)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.observation_space.seed(11)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        return self.observation_space.sample(), 0.0, self._steps == 4, False, {}


def vectorised(space: spaces.Space[Any], frames: int | None, folder: Path | None, keys: list[str] | None = None) -> Any:
    """SB3's own wrappers in RL Zoo's order; saves VecNormalize to ``folder``."""
    from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
    from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize, VecTransposeImage

    env: Any = DummyVecEnv([lambda: Sampler(space)])
    if folder is not None:
        env = VecNormalize(env, norm_obs_keys=keys)
        env.reset()
        for _ in range(9):
            env.step([0])
        env.training = False
        env.save(str(folder / "vecnormalize.pkl"))
    if frames is not None:
        env = VecFrameStack(env, frames)
    held = (
        env.observation_space.spaces.values()
        if isinstance(env.observation_space, spaces.Dict)
        else [env.observation_space]
    )
    if any(is_image_space(part) and not is_image_space_channels_first(part) for part in held):
        env = VecTransposeImage(env)
    return env


@pytest.mark.parametrize("frames", [None, 3])
@pytest.mark.parametrize(
    ("space", "normalise", "keys"),
    [
        (BOX, False, None),
        (BOX, True, None),
        (IMAGE, False, None),
        (IMAGE, True, None),
        (FIRST, False, None),
        (MIXED, False, None),
        (MIXED, True, ["vector"]),
    ],
    ids=["box", "box-normalised", "image", "image-normalised", "channels-first", "dict", "dict-normalised"],
)
def test_observations_equal_those_of_sb3s_wrappers(tmp_path, space, frames, normalise, keys):
    env = vectorised(space, frames, tmp_path if normalise else None, keys)
    statistics = read_statistics(tmp_path / "vecnormalize.pkl") if normalise else None
    pipeline = ObservationPipeline(space, statistics, frames)
    raw = Sampler(space)
    for _ in range(2):  # the second episode starts without the first one's frames
        pipeline.reset()
        expected, (observation, _) = env.reset(), raw.reset()
        for _ in range(3):
            assert_equal(pipeline(observation), expected)
            expected, observation = env.step([0])[0], raw.step(0)[0]
    if not normalise:
        assert pipeline.space == env.observation_space


def assert_equal(ours: Any, theirs: Any) -> None:
    if isinstance(ours, dict):
        for key, value in ours.items():
            np.testing.assert_array_equal(value, theirs[key][0])
            assert value.dtype == theirs[key].dtype
    else:
        np.testing.assert_array_equal(ours, theirs[0])
        assert ours.dtype == theirs.dtype


def test_returned_arrays_are_independent_of_later_ones():
    pipeline = ObservationPipeline(BOX, None, 2)
    first = pipeline(np.ones(4))
    kept = first.copy()
    pipeline(np.zeros(4))
    np.testing.assert_array_equal(first, kept)


def test_statistics_of_stacked_observations_are_applied_after_stacking():
    moments = Moments(np.zeros(8), np.full(8, 4.0))
    pipeline = ObservationPipeline(BOX, ObservationStatistics({None: moments}, 10.0, 0.0), 2)
    np.testing.assert_allclose(pipeline(np.ones(4)), [0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5])


def test_statistics_of_another_space_are_refused():
    moments = Moments(np.zeros(5), np.ones(5))
    with pytest.raises(SpacesDifferError, match=r"statistics of shape \(5,\)"):
        ObservationPipeline(BOX, ObservationStatistics({None: moments}, 10.0, 0.0), None)
    with pytest.raises(SpacesDifferError, match="statistics of 'other'"):
        ObservationPipeline(MIXED, ObservationStatistics({"other": moments}, 10.0, 0.0), None)


def test_spaces_that_can_not_be_stacked_are_refused():
    with pytest.raises(SpacesDifferError, match="can't be stacked"):
        ObservationPipeline(spaces.Discrete(3), None, 4)
