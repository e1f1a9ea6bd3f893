"""Agents of others, from RL Zoo and RLHF-Blender, load as they are and score what their authors published."""

import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlhfblender_core.checkpoints import (
    CheckpointRef,
    check_spaces,
    fetch_checkpoint,
    find_checkpoints,
    load_agent,
    select_checkpoints,
)
from rlhfblender_core.wrappers import wrap_environment

REAL_INPUTS = Path(
    os.environ.get("RLHFBLENDER_REAL_INPUTS") or Path(__file__).parents[2].parent / "shared" / "real-inputs"
)
pytestmark = pytest.mark.skipif(
    not REAL_INPUTS.is_dir(), reason="the real agents aren't there: set RLHFBLENDER_REAL_INPUTS to their folder"
)

EPISODES = 20
AGENTS = [
    ("a2c/Acrobot-v1_1", "Acrobot-v1", "A2C"),
    ("dqn/MountainCar-v0_1", "MountainCar-v0", "DQN"),
    ("ppo/CartPole-v1_1", "CartPole-v1", "PPO"),
    ("ppo/LunarLander-v2_1", "LunarLander-v3", "PPO"),
    ("sac/Pendulum-v1_1", "Pendulum-v1", "SAC"),
    ("tqc/Pendulum-v1_1", "Pendulum-v1", "TQC"),
    ("trpo/CartPole-v1_1", "CartPole-v1", "TRPO"),
]


def reference(folder: Path, environment_id: str, label: int | str, cache: Path) -> CheckpointRef:
    (found,) = select_checkpoints(find_checkpoints(str(folder), environment_id), [label])
    return fetch_checkpoint(found, cache)


def returns(ref: CheckpointRef, env: gym.Env[Any, Any], episodes: int) -> list[float]:
    import torch

    torch.set_num_threads(1)
    check_spaces(ref, env.observation_space, env.action_space)
    env = wrap_environment(env, ref.settings.wrappers)
    policy = load_agent(ref, env.observation_space, env.action_space, deterministic=True)
    return [episode_return(env, policy, seed) for seed in range(episodes)]


def episode_return(env: gym.Env[Any, Any], policy: Any, seed: int) -> float:
    observation, _ = env.reset(seed=seed)
    policy.reset(seed)
    total, ended = 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy.act(observation).action)
        total += float(reward)
        ended = terminated or truncated
    return total


def test_every_real_agent_is_tested():
    zips = {path.parent.relative_to(REAL_INPUTS / "rl-trained-agents") for path in REAL_INPUTS.glob("rl-*/*/*/*.zip")}
    assert {str(path) for path in zips} == {folder for folder, _, _ in AGENTS}


@pytest.mark.parametrize(("folder", "environment_id", "algorithm"), AGENTS)
def test_zoo_agent_scores_what_its_authors_measured(folder, environment_id, algorithm, tmp_path):
    agent = REAL_INPUTS / "rl-trained-agents" / folder
    ref = reference(agent, environment_id, -1, tmp_path)
    assert ref.algorithm == algorithm
    measured = np.array(returns(ref, gym.make(environment_id), EPISODES))
    with np.load(agent / "evaluations.npz", allow_pickle=False) as evaluations:
        published = evaluations["results"][-1].astype(np.float64)
    # Of the difference of two means; 5 % for environments that changed in small ways since.
    error = np.sqrt(measured.var(ddof=1) / len(measured) + published.var(ddof=1) / len(published))
    assert abs(measured.mean() - published.mean()) <= 2 * error + 0.05 * abs(published.mean())


@pytest.mark.filterwarnings("ignore:.*out of date")  # Gymnasium's: there is a roundabout-v1
@pytest.mark.parametrize("label", [10_000, 250_000, 500_000, "final"])
def test_roundabout_checkpoint_drives(label, tmp_path):
    """Of RLHF-Blender; its authors' evaluation of the trained ones is 9.2 of at most 11."""
    pytest.importorskip("highway_env", reason="needs the extra 'highway'")
    ref = reference(REAL_INPUTS / "rlhfblender_model" / "roundabout-v0", "roundabout-v0", label, tmp_path)
    measured = np.mean(returns(ref, gym.make("roundabout-v0"), 4 if label == 10_000 else 8))
    assert measured > (3 if label == 10_000 else 7.5)
