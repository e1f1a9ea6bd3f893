"""Agents of wrappers that ask the environment itself for something act as trained, and what is recorded is raw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AddRenderObservation, TimeAwareObservation
from minigrid.wrappers import (
    FullyObsWrapper,
    ImgObsWrapper,
    RGBImgObsWrapper,
    SymbolicObsWrapper,
)

import rlhfblender_core
from rlhfblender_core.environments import flatten_observation
from rlhfblender_core.errors import CheckpointNotUsableError, SpacesDifferError

Env = gym.Env[Any, Any]
STEPS = 12
MINIGRID = "MiniGrid-DoorKey-8x8-v0"  # its whole picture has another shape than what is seen


class Masked(gym.ObservationWrapper[Any, Any, Any]):
    """CartPole as RL Zoo's CartPoleNoVel-v1 has it."""

    def observation(self, observation: Any) -> Any:
        return observation * np.array([1, 0, 1, 0], np.float32)


def saved_agent(folder: Path, env_id: str, wrappers: list[str], wrap: Callable[[Env], Env], policy: str) -> Any:
    """A model, not trained, in RL Zoo's folder."""
    from stable_baselines3 import PPO

    settings = folder / env_id / "config.yml"
    settings.parent.mkdir(parents=True)
    settings.write_text("".join(["env_wrapper:\n", *(f"  - {name}\n" for name in wrappers)]) if wrappers else "{}\n")
    env_of = env_id.replace("NoVel", "")
    model = PPO(
        policy, wrap(gym.make(env_of, render_mode="rgb_array")), seed=1, device="cpu", n_steps=16, batch_size=16
    )
    model.save(folder / f"{env_id}.zip")
    return model


@pytest.mark.parametrize(
    ("env_id", "wrappers", "wrap", "policy"),
    [
        (MINIGRID, ["FullyObsWrapper", "ImgObsWrapper"], lambda env: ImgObsWrapper(FullyObsWrapper(env)), "MlpPolicy"),
        (
            MINIGRID,
            ["RGBImgObsWrapper", "ImgObsWrapper"],
            lambda env: ImgObsWrapper(RGBImgObsWrapper(env)),
            "CnnPolicy",
        ),
        (
            MINIGRID,
            ["SymbolicObsWrapper", "ImgObsWrapper"],
            lambda env: ImgObsWrapper(SymbolicObsWrapper(env)),
            "MlpPolicy",
        ),
        ("Acrobot-v1", ["gymnasium.wrappers.TimeAwareObservation"], TimeAwareObservation, "MlpPolicy"),
        ("CartPole-v1", ["gymnasium.wrappers.AddRenderObservation"], AddRenderObservation, "CnnPolicy"),
        ("CartPoleNoVel-v1", [], Masked, "MlpPolicy"),
    ],
    ids=["whole", "picture", "symbols", "time", "frame", "velocities"],
)
def test_an_agent_acts_as_behind_its_own_wrappers(
    env_id: str, wrappers: list[str], wrap: Callable[[Env], Env], policy: str, tmp_path: Path
) -> None:
    names = [name if "." in name else f"minigrid.wrappers.{name}" for name in wrappers]
    model = saved_agent(tmp_path, env_id, names, wrap, policy)
    env_of = env_id.replace("NoVel", "")
    data = rlhfblender_core.generate(
        env=env_of, model_path=str(tmp_path / f"{env_id}.zip"), num_episodes=2, max_steps_per_episode=STEPS,
        deterministic=True, no_render="CnnPolicy" not in policy, data_root=str(tmp_path / "data"), workers=0,
    )  # fmt: skip
    assert len(data) == 2
    for episode in data:
        raw, env = gym.make(env_of), wrap(gym.make(env_of, render_mode="rgb_array"))
        own, _ = raw.reset(seed=episode.seed)
        seen, _ = env.reset(seed=episode.seed)
        with episode.open() as arrays:
            for step in range(len(episode)):
                for name, row in flatten_observation(raw.observation_space, own).items():
                    np.testing.assert_array_equal(arrays[name][step], row)
                action = model.predict(seen, deterministic=True)[0]
                assert arrays["actions"][step] == action
                own, seen = raw.step(int(action))[0], env.step(int(action))[0]
        raw.close()
        env.close()


def test_wrappers_that_do_not_go_with_the_environment_are_told_before_anything_is_registered(tmp_path: Path) -> None:
    saved_agent(tmp_path, "CartPole-v1", ["minigrid.wrappers.FullyObsWrapper"], lambda env: env, "MlpPolicy")
    asked = {"env": "CartPole-v1", "model_path": str(tmp_path / "CartPole-v1.zip"), "data_root": str(tmp_path / "data")}
    with pytest.raises(CheckpointNotUsableError, match="FullyObsWrapper' doesn't go with this environment"):
        rlhfblender_core.generate(**asked)
    (tmp_path / "CartPole-v1.zip").rename(tmp_path / "CartPoleNoVel-v1.zip")
    (tmp_path / "CartPole-v1" / "config.yml").unlink()
    asked |= {"env": "Blackjack-v1", "model_path": str(tmp_path / "CartPoleNoVel-v1.zip")}
    with pytest.raises(SpacesDifferError, match="MaskVelocityWrapper"):
        rlhfblender_core.generate(**asked)
    assert not (tmp_path / "data").exists()
