"""The training command killed at random moments: the same command ends it, and nothing is broken or missing."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.storage import open_data_root
from tests.support.documented import REPOSITORY, of
from tests.support.verifying import problems

pytestmark = pytest.mark.timeout(1200)

WAYS = ("SIGTERM", "all", "SIGINT", "SIGKILL")
TOTAL, EVERY, EPISODES = 3072, 1024, 2
FLAGS = (
    *("--env", "CartPole-v1", "--exp", "study", "--num-episodes", EPISODES, "--total-timesteps", TOTAL, "--workers", 1),
    *("--checkpoint-every", EVERY, "--n-envs", 1, "--max-steps-per-episode", 50),
    *("--hyperparameters", "n_steps:256", "batch_size:64", "n_epochs:4", "learning_rate:lin_0.001", "normalize:True"),
)


def start(folder: Path, variables: Mapping[str, str]) -> "subprocess.Popen[str]":
    words = [sys.executable, str(REPOSITORY / "flows/train.py"), *map(str, FLAGS), "--data-root", str(folder / "data")]
    return subprocess.Popen(
        words, cwd=folder, env=dict(variables), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def kill(process: "subprocess.Popen[str]", folder: Path, chance: random.Random, way: str) -> None:
    """Stops the command, or all of its processes, at a random moment of its life or of its training."""
    is_asked = way in ("SIGTERM", "SIGINT")
    if is_asked or chance.random() < 0.5:
        while process.poll() is None and not (folder / "data/models/study/training.json").exists():
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 4))
    else:
        time.sleep(chance.uniform(0, 10))
    was_over = process.poll() is not None
    if way == "all":
        with contextlib.suppress(ProcessLookupError):  # a fast machine is done before
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.send_signal(getattr(signal, way))
    out, _ = process.communicate(timeout=60)
    if is_asked and not was_over and process.returncode != 0:  # else it ended at that moment
        assert process.returncode == 128 + getattr(signal, way), out
        assert "Stopped." in out
    wait_until_gone(process.pid)


def wait_until_gone(session: int) -> None:
    """No process of the command outlives it for long."""
    deadline = time.monotonic() + 30
    while left := [path for path in Path("/proc").glob("[0-9]*/stat") if session_of(path) == session]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def session_of(stat: Path) -> int | None:
    """The session of a process that isn't over."""
    try:
        state, _, _, session, *_ = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else int(session)


@pytest.mark.soak
@pytest.mark.parametrize("kills", [1, 10])
def test_a_training_that_is_killed_ends_with_every_checkpoint_and_episode_whole(
    kills: int, tmp_path: Path, prefect_server: str
) -> None:
    import gymnasium as gym
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    variables = {**os.environ, "PREFECT_API_URL": prefect_server}
    chance = random.Random(kills)
    for number in range(kills):
        kill(start(tmp_path, variables), tmp_path, chance, WAYS[number % len(WAYS)])
        for model in (tmp_path / "data").glob("models/study/*.zip"):  # whole at every moment
            PPO.load(model)
    process = start(tmp_path, variables)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    data, models = tmp_path / "data", tmp_path / "data" / "models" / "study"
    steps = list(range(EVERY, TOTAL + 1, EVERY))
    assert {file.name for file in models.glob("*.zip")} == {f"rl_model_{step}_steps.zip" for step in steps}
    for step in steps:
        assert PPO.load(models / f"rl_model_{step}_steps.zip").num_timesteps == step
        env = DummyVecEnv([lambda: gym.make("CartPole-v1")])
        VecNormalize.load(str(models / f"rl_model_vecnormalize_{step}_steps.pkl"), env)
    made = {folder.name: len(list(folder.iterdir())) for folder in (data / "manifests" / "study").iterdir()}
    assert made == dict.fromkeys(["random", *map(str, steps)], EPISODES)
    assert problems(open_data_root(str(data)), f"sqlite:///{data / 'rlhfblender.db'}") == []
    assert not [path for path in data.rglob("*") if RUNS in path.parts or path.suffix == ".part"]


@pytest.mark.soak
def test_all_commands_of_the_training_document_run_one_after_the_other(tmp_path: Path, prefect_server: str) -> None:
    variables = {**os.environ, "PREFECT_API_URL": prefect_server, "RLHFBLENDER_DATA_ROOT": str(tmp_path / "data")}
    for words in of("python", "docs/training.md"):
        command = [sys.executable, str(REPOSITORY / words[0]), *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
