"""Agents of others, from RL Zoo and RLHF-Blender, load as they are and score what their authors published."""

import os
import sys
from importlib import import_module
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
OLD_MODULES = ("spaces", "spaces.box", "spaces.discrete", "spaces.space")
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
    env = wrap_environment(env, ref.settings.wrappers)
    check_spaces(ref, env.observation_space, env.action_space)
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


def normaliser(agent: Path, environment_id: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What VecNormalize makes of an observation, as Stable-Baselines3 loads it; the observation where there is none."""
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    # Its spaces are those of Gymnasium's predecessor.
    old = {"gym": gym} | {f"gym.{name}": import_module(f"gymnasium.{name}") for name in OLD_MODULES}
    for name, module in old.items():
        monkeypatch.setitem(sys.modules, name, module)
    for file in agent.rglob("vecnormalize.pkl"):
        return VecNormalize.load(file, DummyVecEnv([lambda: gym.make(environment_id)])).normalize_obs
    return lambda observation: observation


@pytest.mark.filterwarnings("ignore")  # Stable-Baselines3's, about settings that other versions of Python have pickled
@pytest.mark.parametrize(("folder", "environment_id", "algorithm"), AGENTS)
def test_zoo_agent_acts_as_stable_baselines3_loads_it(folder, environment_id, algorithm, tmp_path, monkeypatch):
    """On the observations of an episode and on others, far off them."""
    import sb3_contrib
    import stable_baselines3

    agent = REAL_INPUTS / "rl-trained-agents" / folder
    ref = reference(agent, environment_id, -1, tmp_path)
    env = gym.make(environment_id)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    (file,) = agent.glob("*.zip")
    library = sb3_contrib if hasattr(sb3_contrib, algorithm) else stable_baselines3
    loaded = getattr(library, algorithm).load(file, device="cpu", custom_objects={**spaces, "buffer_size": 1})
    normalised = normaliser(agent, environment_id, monkeypatch)
    policy = load_agent(ref, *spaces.values(), deterministic=True)
    observation, _ = env.reset(seed=1)
    policy.reset(1)
    rng = np.random.default_rng(0)
    for _ in range(100):
        for each in (observation, (observation + rng.normal(size=observation.shape)).astype(observation.dtype)):
            expected, _ = loaded.predict(normalised(each), deterministic=True)
            assert np.array_equal(policy.act(each).action, expected)
        observation, _, terminated, truncated, _ = env.step(policy.act(observation).action)
        if terminated or truncated:
            observation, _ = env.reset()


@pytest.mark.filterwarnings("ignore:.*out of date")  # Gymnasium's: there is a roundabout-v1
@pytest.mark.parametrize("label", [10_000, 250_000, 500_000, "final"])
def test_roundabout_checkpoint_drives(label, tmp_path):
    """Of RLHF-Blender; its authors' evaluation of the trained ones is 9.2 of at most 11."""
    pytest.importorskip("highway_env", reason="needs the extra 'highway'")
    ref = reference(REAL_INPUTS / "rlhfblender_model" / "roundabout-v0", "roundabout-v0", label, tmp_path)
    measured = np.mean(returns(ref, gym.make("roundabout-v0"), 4 if label == 10_000 else 8))
    assert measured > (3 if label == 10_000 else 7.5)
