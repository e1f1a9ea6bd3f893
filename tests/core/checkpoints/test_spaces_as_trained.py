"""Policies see and act as in training where the environment's spaces are ordered, numbered or scaled otherwise."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.checkpoints import CheckpointRef, check_spaces, fetch_checkpoint, find_checkpoints, load_agent
from rlhfblender_core.checkpoints.find import Companions
from rlhfblender_core.errors import SpacesDifferError
from rlhfblender_core.wrappers import AgentSettings

SMALL: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "seed": 0, "device": "cpu"}
OFF: dict[str, Any] = {"learning_starts": 8, "buffer_size": 100, "batch_size": 8, "seed": 0, "device": "cpu"}
BOX = spaces.Box(-2, 2, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
FIRST = spaces.Box(0, 255, (3, 36, 40), np.uint8)


class Sampler(gym.Env[Any, Any]):
    """Observations of any space, for five steps; remembers the actions it got."""

    def __init__(self, observed: spaces.Space[Any], acted: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observed, acted
        self.got: list[Any] = []
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.got.append(action)
        self._steps += 1
        return self.observation_space.sample(), float(np.sum(action)), self._steps == 5, False, {}


def samples(space: spaces.Space[Any], count: int = 60) -> list[Any]:
    space.seed(5)
    return [space.sample() for _ in range(count)]


def ref_of(path: Path, statistics: Path | None = None, **overrides: Any) -> CheckpointRef:
    file = find_checkpoints(str(path), "Sampler-v0")[0]
    file = dataclasses.replace(file, companions=Companions(vecnormalize=str(statistics) if statistics else None))
    return fetch_checkpoint(file, path.parent / "cache", overrides=AgentSettings(**overrides))


def loaded(ref: CheckpointRef, observed: spaces.Space[Any], acted: spaces.Space[Any]) -> Any:
    check_spaces(ref, observed, acted)
    policy = load_agent(ref, observed, acted, deterministic=True)
    policy.reset(0)
    return policy


@pytest.mark.parametrize("name", ["PPO-unsorted", "SAC-her", "SAC-her-unsorted"])
@pytest.mark.parametrize("order", [sorted, lambda keys: sorted(keys, reverse=True)], ids=["sorted", "reversed"])
def test_parts_of_a_dict_are_put_side_by_side_as_in_training_whatever_the_environments_order(
    name: str, order: Callable[..., list[str]], trained: Callable[[str], Any]
) -> None:
    model = trained(name)
    reference = model.load_with_sb3()
    held = model.observation_space
    policy = loaded(model.ref(), spaces.Dict([(key, held[key]) for key in order(held.spaces)]), model.action_space)
    for observation in samples(held):
        expected, _ = reference.predict(observation, deterministic=True)
        given = {key: observation[key] for key in order(observation)}
        assert np.array_equal(policy.act(given).action, expected)


NORMALISED: dict[str, tuple[str, spaces.Space[Any], dict[str, Any], dict[str, Any], int | None]] = {
    # policy, observations, arguments of the policy, of VecNormalize, frames stacked
    "image": ("MlpPolicy", IMAGE, {}, {}, None),
    "image-cnn": ("CnnPolicy", FIRST, {"normalize_images": False}, {}, None),
    "image-stacked": ("MlpPolicy", IMAGE, {}, {}, 2),
    "flat-bytes": ("MlpPolicy", spaces.Box(0, 255, (4,), np.uint8), {}, {}, None),
    "rewards-only": ("CnnPolicy", IMAGE, {}, {"norm_obs": False}, None),
    "dict": ("MultiInputPolicy", spaces.Dict([("v", BOX), ("i", IMAGE)]), {}, {}, None),
    "dict-of-one": ("MultiInputPolicy", spaces.Dict([("v", BOX), ("i", IMAGE)]), {}, {"norm_obs_keys": ["v"]}, None),
    "dict-of-image": ("MultiInputPolicy", spaces.Dict([("v", BOX), ("i", IMAGE)]), {}, {"norm_obs_keys": ["i"]}, None),
    "dict-cnn": (
        "MultiInputPolicy",
        spaces.Dict([("v", BOX), ("i", FIRST), ("n", spaces.Discrete(4))]),
        {"normalize_images": False},
        {"norm_obs_keys": ["i", "v"]},
        None,
    ),
    "dict-stacked": ("MultiInputPolicy", spaces.Dict([("v", BOX), ("i", IMAGE)]), {}, {"clip_obs": 1.5}, 3),
}


@pytest.mark.parametrize("name", NORMALISED)
def test_normalised_observations_give_the_actions_of_sb3(name: str, tmp_path: Path) -> None:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

    kind, observed, policy_kwargs, norm_kwargs, frames = NORMALISED[name]
    acted = spaces.Box(-1, 1, (2,), np.float32)
    venv = DummyVecEnv([lambda: Sampler(observed, acted)])
    normalised = VecNormalize(venv, **norm_kwargs)
    env = normalised if frames is None else VecFrameStack(normalised, frames)
    model = PPO(kind, env, policy_kwargs=policy_kwargs, **SMALL)
    model.learn(32)
    model.save(tmp_path / "model.zip")
    normalised.save(str(tmp_path / "vecnormalize.pkl"))

    reference = PPO.load(tmp_path / "model.zip", device="cpu")
    reference.policy.set_training_mode(False)
    wrapped: Any = VecNormalize.load(
        str(tmp_path / "vecnormalize.pkl"), DummyVecEnv([lambda: Sampler(observed, acted)])
    )
    wrapped.training = False
    stack = None if frames is None else VecFrameStack(wrapped, frames)
    ref = ref_of(tmp_path / "model.zip", tmp_path / "vecnormalize.pkl", frame_stack=frames)
    policy = loaded(ref, observed, acted)
    if stack is not None:
        stack.reset()
        stack.stacked_obs.reset(batched(observed.sample()))  # the zeros before an episode's first
        for part in stacks(stack.stacked_obs):
            part.stacked_obs[...] = 0
    for observation in samples(observed, 20):
        seen = wrapped.normalize_obs(batched(observation))
        if stack is not None:
            seen, _ = stack.stacked_obs.update(seen, np.zeros(1, bool), [{}])
        expected, _ = reference.predict(transposed(seen, reference.observation_space), deterministic=True)
        assert np.array_equal(policy.act(observation).action, expected[0])


def batched(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: np.asarray(value)[None] for key, value in observation.items()}
    return observation[None]


def stacks(stacked: Any) -> list[Any]:
    held = stacked.sub_stacked_observations if hasattr(stacked, "sub_stacked_observations") else None
    return list(held.values()) if held else [stacked]


def transposed(seen: Any, space: Any) -> Any:
    """What VecTransposeImage does behind those wrappers."""
    if isinstance(seen, dict):
        return {key: transposed(value, space[key]) for key, value in seen.items()}
    return seen if seen.shape[1:] == space.shape else seen.transpose(0, 3, 1, 2)


def shift(env: gym.Env[Any, Any], by: Any, counted: spaces.Space[Any]) -> gym.Env[Any, Any]:
    return gym.wrappers.TransformAction(env, lambda action: action + by, counted)


SHIFTED = {
    "discrete": (spaces.Discrete(4, start=1), 1, spaces.Discrete(4)),
    "below-zero": (spaces.Discrete(3, start=-1), -1, spaces.Discrete(3)),
    "multi": (spaces.MultiDiscrete([3, 2], start=[5, -1]), np.array([5, -1]), spaces.MultiDiscrete([3, 2])),
}


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [*(("PPO", name) for name in SHIFTED), ("DQN", "discrete"), ("DQN", "below-zero"), ("QRDQN", "discrete")],
)
def test_actions_are_shifted_where_the_agent_was_trained_behind_a_shift(
    algorithm: str, name: str, tmp_path: Path
) -> None:
    import sb3_contrib
    import stable_baselines3

    acted, by, counted = SHIFTED[name]
    maker = getattr(stable_baselines3, algorithm, None) or getattr(sb3_contrib, algorithm)
    raw = Sampler(BOX, acted)
    model = maker("MlpPolicy", shift(raw, by, counted), **(SMALL if algorithm == "PPO" else OFF))
    model.learn(20).save(tmp_path / "model.zip")
    assert all(acted.contains(action) for action in raw.got)
    reference = maker.load(tmp_path / "model.zip", device="cpu")
    for deterministic in (True, False):
        policy = load_agent(ref_of(tmp_path / "model.zip"), BOX, acted, deterministic=deterministic)
        policy.reset(0)
        for observation in samples(BOX):
            action = policy.act(observation).action
            assert acted.contains(action)
            if deterministic:
                assert np.array_equal(action, reference.predict(observation, deterministic=True)[0] + by)
    check_spaces(ref_of(tmp_path / "model.zip"), BOX, acted)


@pytest.mark.parametrize("name", SHIFTED)
def test_observations_are_shifted_where_the_agent_was_trained_behind_a_shift(name: str, tmp_path: Path) -> None:
    from stable_baselines3 import PPO

    observed, by, counted = SHIFTED[name]
    raw = Sampler(observed, spaces.Discrete(3))
    env = gym.wrappers.TransformObservation(raw, lambda observation: observation - by, counted)
    PPO("MlpPolicy", env, **SMALL).learn(16).save(tmp_path / "model.zip")
    reference = PPO.load(tmp_path / "model.zip", device="cpu")
    alone = loaded(ref_of(tmp_path / "model.zip"), observed, raw.action_space)
    for observation in samples(observed):
        assert alone.act(observation).action == reference.predict(observation - by, deterministic=True)[0]


def test_a_part_of_a_dict_is_shifted_alone(tmp_path: Path) -> None:
    from stable_baselines3 import PPO

    observed = spaces.Dict([("n", spaces.Discrete(4, start=2)), ("b", BOX)])
    counted = spaces.Dict([("n", spaces.Discrete(4)), ("b", BOX)])
    env = Sampler(counted, spaces.Discrete(3))
    PPO("MultiInputPolicy", env, **SMALL).learn(16).save(tmp_path / "model.zip")
    reference = PPO.load(tmp_path / "model.zip", device="cpu")
    policy = loaded(ref_of(tmp_path / "model.zip"), observed, env.action_space)
    for observation in samples(observed):
        expected, _ = reference.predict({**observation, "n": observation["n"] - 2}, deterministic=True)
        assert policy.act(observation).action == expected


def test_observations_are_as_they_are_where_the_agent_was_trained_on_those(tmp_path: Path) -> None:
    """Stable-Baselines3 has a place for each number from 0 to n - 1, so the largest ones can't be seen."""
    from stable_baselines3 import PPO

    observed = spaces.Discrete(6, start=2)

    class Low(Sampler):
        def step(self, action: Any) -> Any:
            _, *rest = super().step(action)
            return np.int64(2 + self._steps % 4), *rest

        def reset(self, **kwargs: Any) -> Any:
            super().reset(**kwargs)
            return np.int64(2), {}

    env = Low(observed, spaces.Discrete(3))
    PPO("MlpPolicy", env, **SMALL).learn(16).save(tmp_path / "model.zip")
    reference = PPO.load(tmp_path / "model.zip", device="cpu")
    policy = loaded(ref_of(tmp_path / "model.zip"), observed, env.action_space)
    for observation in range(2, 6):
        assert policy.act(np.int64(observation)).action == reference.predict(observation, deterministic=True)[0]
    with pytest.raises(SpacesDifferError, match=r"Discrete\(6, start=2\), the environment has Discrete\(6\)"):
        check_spaces(ref_of(tmp_path / "model.zip"), spaces.Discrete(6), env.action_space)


def test_an_agent_whose_actions_arent_all_in_the_space_is_refused(tmp_path: Path) -> None:
    """Trained in a space that starts at 1 without a shift, it takes actions from 0 on."""
    from stable_baselines3 import PPO

    acted = spaces.Discrete(3, start=1)
    raw = Sampler(BOX, acted)
    PPO("MlpPolicy", raw, **SMALL).learn(16).save(tmp_path / "model.zip")
    assert not all(acted.contains(action) for action in raw.got)
    ref = ref_of(tmp_path / "model.zip")
    for space in (acted, spaces.Discrete(3, start=2)):
        with pytest.raises(SpacesDifferError, match=r"trained on actions Discrete\(3, start=1\).* shift") as caught:
            check_spaces(ref, BOX, space)
        assert "\n" not in str(caught.value)
    reference = PPO.load(tmp_path / "model.zip", device="cpu")
    policy = loaded(ref, BOX, spaces.Discrete(3))  # which has all of them
    for observation in samples(BOX):
        assert policy.act(observation).action == reference.predict(observation, deterministic=True)[0]
