"""Tiny models of every algorithm, trained for a few steps, once per session and only where a test wants one."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.checkpoints import CheckpointRef, fetch_checkpoint, find_checkpoints

os.environ.setdefault("OMP_NUM_THREADS", "1")


class SpacesEnv(gym.Env[Any, Any]):
    """Random observations of any space, for five steps."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return self.observation_space.sample(), float(np.sum(action)), self._steps == 5, False, {}


BOX = spaces.Box(-1, 1, (3,), np.float32)
UNEVEN = spaces.Box(np.array([-2, 0], np.float32), np.array([1, 5], np.float32))
IMAGE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
GOAL = spaces.Dict({"achieved_goal": BOX, "desired_goal": BOX, "observation": spaces.Box(-5, 5, (4,), np.float64)})
# Pairs keep their order; the keys of a mapping would be sorted.
UNSORTED_GOAL = spaces.Dict(
    [("observation", GOAL["observation"]), ("desired_goal", BOX), ("achieved_goal", spaces.Box(-9, 9, (3,)))]
)
UNSORTED = spaces.Dict(
    [("z", spaces.Box(-9, 9, (2,))), ("image", IMAGE), ("m", spaces.Discrete(3)), ("a", spaces.MultiDiscrete([2, 4]))]
)

_PPO = {"n_steps": 16, "batch_size": 16, "n_epochs": 1}
_OFF = {"learning_starts": 8, "buffer_size": 100, "batch_size": 8}

#: name -> (algorithm, policy, observation space, action space, arguments)
MODELS: dict[str, tuple[str, str, spaces.Space[Any], spaces.Space[Any], dict[str, Any]]] = {
    "A2C": ("A2C", "MlpPolicy", BOX, spaces.Discrete(3), {"n_steps": 5}),
    "PPO": (
        "PPO",
        "MlpPolicy",
        BOX,
        spaces.Discrete(3),
        {**_PPO, "policy_kwargs": {"net_arch": {"pi": [8], "vf": [9]}}},
    ),
    "PPO-box": ("PPO", "MlpPolicy", BOX, UNEVEN, _PPO),
    "PPO-sde": ("PPO", "MlpPolicy", BOX, UNEVEN, {**_PPO, "use_sde": True}),
    "PPO-multi-discrete": ("PPO", "MlpPolicy", spaces.MultiDiscrete([2, 4]), spaces.MultiDiscrete([3, 2]), _PPO),
    "PPO-multi-binary": ("PPO", "MlpPolicy", spaces.Discrete(5), spaces.MultiBinary(3), _PPO),
    "PPO-image": ("PPO", "CnnPolicy", IMAGE, spaces.Discrete(3), _PPO),
    "PPO-unsorted": ("PPO", "MultiInputPolicy", UNSORTED, spaces.Discrete(3), _PPO),
    "TRPO": ("TRPO", "MlpPolicy", BOX, spaces.Discrete(3), {"n_steps": 16, "batch_size": 16}),
    "MaskablePPO": ("MaskablePPO", "MlpPolicy", BOX, spaces.Discrete(3), _PPO),
    "MaskablePPO-multi": ("MaskablePPO", "MlpPolicy", BOX, spaces.MultiDiscrete([3, 2]), _PPO),
    "RecurrentPPO": ("RecurrentPPO", "MlpLstmPolicy", BOX, spaces.Discrete(3), _PPO),
    "DQN": ("DQN", "MlpPolicy", BOX, spaces.Discrete(3), _OFF),
    "QRDQN": ("QRDQN", "MlpPolicy", BOX, spaces.Discrete(3), {**_OFF, "policy_kwargs": {"n_quantiles": 7}}),
    "SAC": ("SAC", "MlpPolicy", BOX, UNEVEN, _OFF),
    "SAC-her": ("SAC", "MultiInputPolicy", GOAL, UNEVEN, _OFF),
    "SAC-her-unsorted": ("SAC", "MultiInputPolicy", UNSORTED_GOAL, UNEVEN, _OFF),
    "SAC-sde": ("SAC", "MlpPolicy", BOX, UNEVEN, {**_OFF, "use_sde": True}),
    "TD3": ("TD3", "MlpPolicy", BOX, UNEVEN, _OFF),
    "DDPG": ("DDPG", "MlpPolicy", BOX, UNEVEN, _OFF),
    "TQC": ("TQC", "MlpPolicy", BOX, UNEVEN, _OFF),
    "CrossQ": ("CrossQ", "MlpPolicy", BOX, UNEVEN, _OFF),
    "ARS": ("ARS", "MlpPolicy", BOX, UNEVEN, {"n_delta": 2, "n_top": 1}),
    "ARS-linear": ("ARS", "LinearPolicy", BOX, spaces.Discrete(3), {"n_delta": 2, "n_top": 1}),
}


@dataclass(frozen=True)
class Trained:
    """A saved model and what it was trained in."""

    name: str
    algorithm: str
    path: Path
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]

    def ref(self, **kwargs: Any) -> CheckpointRef:
        return fetch_checkpoint(find_checkpoints(str(self.path), "Spaces-v0")[0], self.path.parent / "cache", **kwargs)

    def load_with_sb3(self) -> Any:
        # Without an environment Stable-Baselines3 can't make the buffer for hindsight, which nobody needs here.
        no_her = {"replay_buffer_class": None, "replay_buffer_kwargs": {}} if self.name.startswith("SAC-her") else None
        model = algorithm_class(self.algorithm).load(self.path, device="cpu", custom_objects=no_her)
        model.policy.set_training_mode(False)
        return model


def algorithm_class(name: str) -> Any:
    import sb3_contrib
    import stable_baselines3

    return getattr(stable_baselines3, name, None) or getattr(sb3_contrib, name)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Gives the model of a name in ``MODELS``, training it the first time."""
    folder = tmp_path_factory.mktemp("models")
    made: dict[str, Trained] = {}

    def get(name: str) -> Trained:
        if name not in made:
            made[name] = _train(name, folder / f"{name}.zip")
        return made[name]

    return get


def _train(name: str, path: Path) -> Trained:
    import torch

    torch.set_num_threads(1)
    algorithm, policy, observed, acted, kwargs = MODELS[name]
    kwargs = dict(kwargs)
    if name.startswith("SAC-her"):
        from stable_baselines3 import HerReplayBuffer

        kwargs["replay_buffer_class"] = HerReplayBuffer
    env = HerEnv(observed, acted) if name.startswith("SAC-her") else SpacesEnv(observed, acted)
    model = algorithm_class(algorithm)(policy, env, seed=0, device="cpu", **kwargs)
    learn = {"use_masking": False} if algorithm == "MaskablePPO" else {}
    model.learn(20, **learn)
    model.save(path)
    return Trained(name, algorithm, path, observed, acted)


class HerEnv(SpacesEnv):
    """With the reward function that hindsight needs."""

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        return np.zeros(len(achieved), np.float32)


@pytest.fixture(scope="session")
def model_names() -> tuple[str, ...]:
    return tuple(MODELS)
