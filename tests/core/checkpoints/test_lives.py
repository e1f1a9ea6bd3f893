"""An agent of Atari games forgets with each life, as in training, where each was an episode."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import rlhfblender_core

GAME = "BreakoutNoFrameskip-v4"
WRAPPER = "stable_baselines3.common.atari_wrappers.AtariWrapper"
STEPS = 120


def make_game() -> Any:
    from stable_baselines3.common.atari_wrappers import AtariWrapper
    from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

    return VecFrameStack(DummyVecEnv([lambda: AtariWrapper(gym.make(GAME))]), 4)


def sensitive_model(algorithm: str, game: Any) -> Any:
    """A model whose choices hang on all that it sees and remembers: weights are large where they are tiny else."""
    import torch
    from sb3_contrib import RecurrentPPO
    from stable_baselines3 import PPO

    small = {"n_steps": 8, "batch_size": 8, "seed": 3, "device": "cpu"}
    if algorithm == "PPO":
        model: Any = PPO("CnnPolicy", game, **small)
    else:
        model = RecurrentPPO("CnnLstmPolicy", game, policy_kwargs={"lstm_hidden_size": 16}, **small)
    with torch.no_grad():
        model.policy.action_net.weight.mul_(3000)
    return model


@pytest.mark.parametrize("algorithm", ["PPO", "RecurrentPPO"])
def test_actions_are_those_of_sb3_beyond_the_first_life(algorithm: str, tmp_path: Path) -> None:
    gym.register_envs(pytest.importorskip("ale_py", reason="Atari needs the extra 'atari'"))
    pytest.importorskip("cv2", reason="Atari preprocessing needs OpenCV")
    game = make_game()
    model = sensitive_model(algorithm, game)
    model.save(tmp_path / f"{GAME}.zip")
    (tmp_path / GAME).mkdir()
    (tmp_path / GAME / "config.yml").write_text(f"env_wrapper:\n  - {WRAPPER}\nframe_stack: 4\n")
    (episode,) = rlhfblender_core.generate(
        env=GAME, model_path=str(tmp_path / f"{GAME}.zip"), num_episodes=1, max_steps_per_episode=STEPS,
        deterministic=True, no_render=True, data_root=str(tmp_path / "data"), workers=0,
    )  # fmt: skip
    game.seed(episode.seed)
    seen, state, start, lives = game.reset(), None, np.ones(1, bool), 0
    expected = []
    for _ in range(len(episode)):
        action, state = model.predict(seen, state=state, episode_start=start, deterministic=True)
        seen, _, start, _ = game.step(action)
        expected.append(int(action[0]))
        lives += int(start[0])
    assert lives >= 1
    assert len(set(expected)) > 1
    assert episode.actions.tolist() == expected
