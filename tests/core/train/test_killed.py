"""A training whose processes are killed goes on, and what it comes to plays as Stable-Baselines3's own model does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.train.arguments import algorithm_class
from rlhfblender_core.train.model_folder import TrainingRecord, read_record
from rlhfblender_core.train.run import train
from tests.core.train.test_training import BIT_FLIPPING, job_of, run
from tests.support import killing

_OFF = {"learning_starts": 50, "buffer_size": 2000, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}}
_HER = {"replay_buffer_class": "HerReplayBuffer", "replay_buffer_kwargs": {"n_sampled_goal": 2}}
#: What is trained, by name: algorithm, environment, hyperparameters.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dqn": ("DQN", {"env": "CartPole-v1"}, {**_OFF, "learning_rate": "lin_0.01"}),
    "recurrent": (
        "RecurrentPPO",
        {"env": "CartPole-v1"},
        {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "policy_kwargs": {"lstm_hidden_size": 8}, "normalize": True},
    ),
    "tqc": ("TQC", {"env": "Pendulum-v1"}, _OFF),
    "sac": ("SAC", {"env": "Pendulum-v1"}, {**_OFF, "normalize": "dict(norm_reward=False)"}),
    "her": ("DQN", {**BIT_FLIPPING, "env_kwargs": {"n_bits": 4, "continuous": False}}, {**_OFF, **_HER}),
}
TOTAL, EVERY = 450, 150

_TRAIN = """
import json, sys
from rlhfblender_core.train.run import train
if __name__ == "__main__":
    train(**json.loads(sys.argv[1]))
"""


def flags_of(name: str, folder: Path) -> dict[str, Any]:
    algorithm, env, hyperparameters = CASES[name]
    return {
        **env, "exp": "study", "algorithm": algorithm, "hyperparameters": hyperparameters, "n_envs": 1, "workers": 1,
        "total_timesteps": TOTAL, "checkpoint_every": EVERY, "keep_replay_buffer": True, "no_render": True,
        "num_episodes": 1, "max_steps_per_episode": 40, "data_root": str(folder / "data"), "deterministic": True,
    }  # fmt: skip


def killed_when(is_due: Callable[[], bool], flags: dict[str, Any]) -> None:
    """Starts the training and kills all of its processes at a moment."""
    script = Path(str(flags["data_root"])).with_name("training.py")
    script.write_text(_TRAIN)
    command = [sys.executable, str(script), json.dumps({**flags, "no_rollouts": True})]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not is_due():
        time.sleep(0.01)
    assert process.poll() is None, "it wasn't killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.timeout(600)
@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_a_killed_training_goes_on_and_plays_as_stable_baselines_own(name: str, tmp_path: Path) -> None:
    flags = flags_of(name, tmp_path)
    models = tmp_path / "data" / "models" / "study"
    killed_when((models / f"rl_model_{EVERY}_steps.zip").exists, flags)
    killed_when((models / f"rl_model_{2 * EVERY}_steps.zip").exists, flags)
    result = train(**flags)
    steps = list(range(EVERY, TOTAL + 1, EVERY))
    assert result.steps == tuple(steps)
    kind = algorithm_class(Algorithm(CASES[name][0]))
    record = read_record(DataRoot(str(models)))
    assert record is not None
    check_record(record, steps, is_off_policy=hasattr(kind, "load_replay_buffer"))
    buffers = [file.name for file in models.glob("*replay_buffer*")]
    assert buffers == ([f"rl_model_replay_buffer_{TOTAL}_steps.npz"] if hasattr(kind, "load_replay_buffer") else [])
    for step in (steps[0], steps[-1]):
        check_plays_alike(kind, flags, models, step)


def check_record(record: TrainingRecord, steps: list[int], *, is_off_policy: bool) -> None:
    assert list(map(int, record.checkpoints)) == steps
    resumed = [int(entry["step"]) for entry in record.resumed_at]
    assert resumed[0] >= EVERY
    assert resumed[1] >= 2 * EVERY
    assert len(resumed) == 2
    if is_off_policy:
        assert not [reason for entry in record.resumed_at for reason in entry["not_bit_equal"] if "buffer" in reason]


def check_plays_alike(kind: Any, flags: dict[str, Any], models: Path, step: int) -> None:
    """Action by action, what was published is what Stable-Baselines3's own model does from the same seed."""
    data = Path(flags["data_root"])
    seed = json.loads((data / f"manifests/study/{step}/0.json").read_text())["seed"]
    kwargs = flags.get("env_kwargs", {})
    venv: Any = DummyVecEnv([lambda: BitFlippingEnv(**kwargs) if kwargs else gym.make(flags["env"])])
    statistics = models / f"rl_model_vecnormalize_{step}_steps.pkl"
    assert statistics.exists() == ("normalize" in flags["hyperparameters"])
    if statistics.exists():
        venv = VecNormalize.load(str(statistics), venv)
        venv.training = venv.norm_reward = False
    own = kind.load(models / f"rl_model_{step}_steps.zip", env=venv)
    assert own.num_timesteps == step
    venv.seed(seed)
    observation, state, starts = venv.reset(), None, np.ones(1, bool)
    with np.load(data / f"episodes/study/{step}/0.npz", allow_pickle=False) as arrays:
        for recorded, reward in zip(arrays["actions"], arrays["rewards"], strict=True):
            action, state = own.predict(observation, state=state, episode_start=starts, deterministic=True)
            assert np.array_equal(action[0], recorded)
            observation, rewards, dones, _ = venv.step(action)
            assert rewards[0] == pytest.approx(reward, abs=1e-4)
            starts = dones
    venv.close()


def go_on(folder: Path) -> None:
    """Trains to the end, with statistics and a replay buffer beside each checkpoint."""
    run(job_of("sac", folder, 120))


def check_whole(folder: Path) -> None:
    """Every checkpoint that is there is loaded, has its statistics, and the last one its replay buffer."""
    steps = sorted(int(file.name.split("_")[2]) for file in folder.glob("rl_model_*_steps.zip"))
    venv: Any = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
    for step in steps:
        assert SAC.load(folder / f"rl_model_{step}_steps.zip", device="cpu").num_timesteps == step
        VecNormalize.load(str(folder / f"rl_model_vecnormalize_{step}_steps.pkl"), venv)
    for step in steps[-1:]:
        with np.load(folder / f"rl_model_replay_buffer_{step}_steps.npz", allow_pickle=False) as arrays:
            assert step - 2 <= int(arrays["pos"]) <= step  # that of a checkpoint's own step isn't in it yet
    venv.close()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=pytest.mark.soak)])
def test_killed_at_any_change_to_its_folder_a_training_ends_as_if_it_wasnt(kills: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    code, changes = killing.run(partial(go_on, whole), tmp_path / "temporary")
    names = {str(path.relative_to(whole)) for path in whole.rglob("*")}
    assert code == 0
    assert {"rl_model_60_steps.zip", "rl_model_120_steps.zip", "rl_model_replay_buffer_120_steps.npz"} <= names
    for number in range(kills):
        folder = tmp_path / f"{number}"
        moment = round(changes * (number + 1) / (kills + 1))
        code, _ = killing.run(partial(go_on, folder), tmp_path / "temporary", moment)
        assert code == killing.KILLED
        check_whole(folder)
        for unnamed in folder.glob(f"{RUNS}/.new-*"):  # killed before it was locked: dead by its age
            os.utime(unnamed, (0, 0))
        go_on(folder)
        check_whole(folder)
        assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == names


def test_a_replay_buffer_that_was_kept_is_kept_on_without_the_flag(tmp_path: Path) -> None:
    flags = {**flags_of("dqn", tmp_path), "total_timesteps": 100, "checkpoint_every": 100, "no_rollouts": True}
    train(**flags)
    train(exp="study", total_timesteps=200, no_rollouts=True, data_root=flags["data_root"])
    models = tmp_path / "data" / "models" / "study"
    assert [file.name for file in models.glob("*replay_buffer*")] == ["rl_model_replay_buffer_200_steps.npz"]
    record = read_record(DataRoot(str(models)))
    assert record is not None
    assert not [reason for reason in record.resumed_at[0]["not_bit_equal"] if "buffer" in reason]
