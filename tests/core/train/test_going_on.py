"""A training that goes on is what Stable-Baselines3's own model, loaded from the same files, comes to: bit by bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from rlhfblender_core.train.arguments import algorithm_class
from rlhfblender_core.train.environments import make_environments
from rlhfblender_core.train.replay_buffer import read_buffer
from tests.core.train.test_training import CASES, job_of, run

#: A DQN that always explores: its next action tells how much it does.
EXPLORING = {"exploration_fraction": 1.0, "exploration_initial_eps": 1.0, "exploration_final_eps": 1.0}
_ALWAYS = ("dqn", "her", "sac")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As trainings have it here: sums come out otherwise with more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore")  # of algorithms about such short trainings
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in _ALWAYS else pytest.mark.soak) for name in CASES]
)
def test_a_training_goes_on_as_stable_baselines_own_model_does(name: str, tmp_path: Path) -> None:
    kind, more = algorithm_class(CASES[name][1]), EXPLORING if name == "dqn" else {}
    changed = {"hyperparameters": {**CASES[name][2], **more}}
    run(job_of(name, tmp_path, 60, **changed))
    reached = newest(tmp_path)
    job = job_of(name, tmp_path, reached + 60, **changed)
    env = make_environments(job)
    statistics = tmp_path / f"rl_model_vecnormalize_{reached}_steps.pkl"
    if statistics.exists():
        env = VecNormalize.load(str(statistics), env.venv)
    own = kind.load(tmp_path / f"rl_model_{reached}_steps.zip", env)
    buffer = tmp_path / f"rl_model_replay_buffer_{reached}_steps.npz"
    assert buffer.exists() == hasattr(own, "replay_buffer")
    if buffer.exists():
        read_buffer(own.replay_buffer, buffer)
    own.set_random_seed(int(np.random.SeedSequence([job.seed, reached]).generate_state(1)[0]))
    own.learn(60, callback=_Until(job.total_timesteps), reset_num_timesteps=False)

    run(job)
    found = kind.load(tmp_path / f"rl_model_{newest(tmp_path)}_steps.zip", env)
    assert (found.num_timesteps, found._n_updates) == (own.num_timesteps, own._n_updates)
    assert found.num_timesteps >= job.total_timesteps
    assert same(found.get_parameters(), own.get_parameters())
    if statistics.exists():
        file = tmp_path / f"rl_model_vecnormalize_{job.total_timesteps}_steps.pkl"
        theirs = VecNormalize.load(str(file), make_environments(job).venv)
        assert np.array_equal(theirs.obs_rms.mean, env.obs_rms.mean)
        assert theirs.obs_rms.count == env.obs_rms.count > job.total_timesteps
    if buffer.exists():
        kept = tmp_path / f"rl_model_replay_buffer_{job.total_timesteps}_steps.npz"
        read_buffer(found.replay_buffer, kept)
        assert np.array_equal(found.replay_buffer.actions, own.replay_buffer.actions)


class _Until(BaseCallback):
    """Ends at a step, as a training of ours does: with no update behind it."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._step = step

    def _on_step(self) -> bool:
        return self.model.num_timesteps < self._step


def newest(folder: Path) -> int:
    """The step of the last checkpoint."""
    return max(int(file.name.split("_")[2]) for file in folder.glob("rl_model_*_steps.zip"))


def same(left: Any, right: Any) -> bool:
    """Whether all tensors are equal, bit by bit."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else bool(left == right)
