"""A step of an episode against a step of a loop around Stable-Baselines3's ``predict``.

``python benchmarks/decisions.py``. Both sides take turns in one process, with one torch thread, the same agent, seeds
and actions (compared); processor time counts. The loop keeps its environment and records nothing. Ours is a shard from
the environments' making to the manifests, without videos. Networks have the weights they begin with (what they cost
doesn't depend on them), but for the first, which learns to make episodes long, or is given.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from rlhfblender_core.checkpoints.fetch import fetch_checkpoint
from rlhfblender_core.checkpoints.find import find_checkpoints
from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.policies.protocol import derived_seed
from rlhfblender_core.rollout.agents import CheckpointAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.seeding import episode_seed
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, roll_out_shard

#: Algorithm, environment; MountainCar's episodes have 200 steps, Pendulum's, too.
CASES = (
    ("PPO", "CartPole-v1"),
    ("PPO", "MountainCar-v0"),
    ("A2C", "MountainCar-v0"),
    ("TRPO", "MountainCar-v0"),
    ("DQN", "MountainCar-v0"),
    ("QRDQN", "MountainCar-v0"),
    ("MaskablePPO", "MountainCar-v0"),
    ("RecurrentPPO", "MountainCar-v0"),
    ("PPO", "Pendulum-v1"),
    ("RecurrentPPO", "Pendulum-v1"),
    ("SAC", "Pendulum-v1"),
    ("TQC", "Pendulum-v1"),
    ("CrossQ", "Pendulum-v1"),
    ("TD3", "Pendulum-v1"),
    ("DDPG", "Pendulum-v1"),
)
_TORCH_STREAM = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="in which both sides take turns; medians count")
    parser.add_argument("--episodes", type=int, default=2, help="per side and round")
    parser.add_argument("--model", help="a PPO zip for CartPole-v1 (default: trains one, half a minute)")
    parser.add_argument("--only", help="algorithm, or algorithm/environment")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| algorithm, environment, actions | predict, µs per step | ours | ratio |\n|---|---|---|---|")
    for algorithm, env_id in CASES:
        if arguments.only in (None, algorithm, f"{algorithm}/{env_id}"):
            with tempfile.TemporaryDirectory() as folder:
                is_first = (algorithm, env_id) == CASES[0]
                model = arguments.model if is_first and arguments.model else made(algorithm, env_id, Path(folder))
                for deterministic in (True, False):
                    with tempfile.TemporaryDirectory() as out:
                        compare(algorithm, env_id, model, Path(out), arguments, deterministic=deterministic)


def class_of(algorithm: str) -> type[BaseAlgorithm]:
    return getattr(stable_baselines3, algorithm, None) or getattr(sb3_contrib, algorithm)


def made(algorithm: str, env_id: str, folder: Path) -> str:
    path, kind = folder / f"{algorithm}.zip", class_of(algorithm)
    policy = "MlpLstmPolicy" if algorithm == "RecurrentPPO" else "MlpPolicy"
    if env_id == "CartPole-v1":
        kind(policy, env_id, n_steps=512, batch_size=128, seed=1, device="cpu").learn(40_000).save(path)
    else:
        kind(policy, env_id, seed=1, device="cpu").save(path)
    return str(path)


def compare(
    algorithm: str, env_id: str, model: str, folder: Path, arguments: argparse.Namespace, *, deterministic: bool
) -> None:
    """Prints a row: medians of processor time per step, and of the rounds' ratios."""
    kind = class_of(algorithm)
    env = gym.make(env_id)
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    agent = kind.load(model, device="cpu", custom_objects=spaces)
    settings = settings_of(algorithm, env_id, model, folder, deterministic=deterministic)
    episodes = tuple(range(arguments.episodes))
    rounds = []
    for number in range(arguments.rounds + 1):
        theirs = timed(lambda: predicted(agent, env, episodes, deterministic=deterministic))
        ours = timed(lambda: recorded(settings, episodes, folder / str(number)))  # noqa: B023 (called in this round)
        rounds.append((theirs, ours))
        if number == 0:
            check_equal(env_id, algorithm, folder / "0", predicted(agent, env, episodes, deterministic=deterministic))
    rounds = rounds[1:]  # the first one warms up
    ratio = statistics.median(theirs / ours for theirs, ours in rounds)
    theirs, ours = (statistics.median(side) for side in zip(*rounds, strict=True))
    how = "the most likely" if deterministic else "sampled"
    print(f"| {algorithm}, {env_id}, {how} | {theirs:.0f} | {ours:.0f} | {ratio:.2f} |", flush=True)


def timed(make: Callable[[], Any]) -> float:
    """Microseconds of processor time per step of what returns episodes' actions or lengths."""
    started = time.process_time()
    lengths = make()
    spent = time.process_time() - started
    return spent / sum(each if isinstance(each, int) else len(each) for each in lengths) * 1e6


def predicted(agent: Any, env: gym.Env[Any, Any], episodes: tuple[int, ...], *, deterministic: bool) -> list[list[Any]]:
    """The episodes' actions, as a user's loop finds them."""
    made = []
    for episode in episodes:
        seed = episode_seed(0, episode)
        torch.manual_seed(derived_seed(seed, _TORCH_STREAM))
        observation, _ = env.reset(seed=seed)
        actions, state, done, start = [], None, False, np.array([True])
        while not done:
            action, state = agent.predict(observation, state, start, deterministic=deterministic)
            observation, _, terminated, truncated, _ = env.step(action)
            actions.append(action)
            done = terminated or truncated
            start = np.array([done])
        made.append(actions)
    return made


def recorded(settings: RolloutSettings, episodes: tuple[int, ...], folder: Path) -> list[int]:
    """The lengths of the episodes that a worker makes of the same."""
    folder.mkdir()
    shard = roll_out_shard(Shard(CheckpointKey("bench", "x"), settings, episodes), folder)
    if shard.failures:
        raise SystemExit(str(shard.failures))
    return [episode.manifest.episode_length for episode in shard.episodes]


def settings_of(algorithm: str, env_id: str, model: str, folder: Path, *, deterministic: bool) -> RolloutSettings:
    file = find_checkpoints(model, env_id)[0]
    agent = CheckpointAgent(file, fetch_checkpoint(file, folder, algorithm=algorithm))
    mask = "none" if algorithm == "MaskablePPO" else None
    options = RolloutOptions(render=False, deterministic=deterministic, action_mask_method=mask)
    return RolloutSettings(EnvironmentSpec(env_id), agent, options)


def check_equal(env_id: str, algorithm: str, folder: Path, expected: list[list[Any]]) -> None:
    """Both sides have done the same, but for DQN's own exploration."""
    for episode, actions in enumerate(expected):
        with np.load(folder / "x" / str(episode) / f"{ArtifactKind.EPISODES}.npz") as arrays:
            if not np.array_equal(arrays["actions"], np.array(actions)):
                print(f"# {algorithm} in {env_id}: other actions", flush=True)


if __name__ == "__main__":
    main()
