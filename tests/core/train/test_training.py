"""Training: checkpoints and their episodes appear, a later run goes on, and nothing of a folder is unpickled."""

import json
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.dataset.manifests import ResumedTraining, parse_manifest
from rlhfblender_core.environments.spec import EnvironmentSpec
from rlhfblender_core.errors import CheckpointNotUsableError, InvalidParameterError, SpacesDifferError
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.train.job import CheckpointWritten, Event, Started, TrainingJob
from rlhfblender_core.train.model_folder import TrainingRecord, read_record
from rlhfblender_core.train.run import train
from rlhfblender_core.train.trainer import train_agent
from rlhfblender_core.wrappers.specs import parse_settings
from tests.support import server_contract

BIT_FLIPPING = {
    "env": "BitFlipping-v0",
    "env_gym_entrypoint": "stable_baselines3.common.envs:BitFlippingEnv",
    "env_kwargs": {"n_bits": 3, "continuous": False},
}
_SMALL = {"policy_kwargs": "dict(net_arch=[8])", "learning_starts": 20, "buffer_size": 500, "batch_size": 16}

#: Small trainings, by name: environment, algorithm, hyperparameters.
CASES: dict[str, tuple[EnvironmentSpec, Algorithm, dict[str, Any]]] = {
    "ppo": (EnvironmentSpec("CartPole-v1"), Algorithm.PPO, {"n_steps": 16, "batch_size": 16, "normalize": True}),
    "a2c": (EnvironmentSpec("CartPole-v1"), Algorithm.A2C, {"n_steps": 8}),
    "trpo": (EnvironmentSpec("CartPole-v1"), Algorithm.TRPO, {"n_steps": 16, "batch_size": 16}),
    "recurrent": (
        EnvironmentSpec("CartPole-v1"),
        Algorithm.RECURRENT_PPO,
        {"n_steps": 16, "batch_size": 16, "policy_kwargs": "dict(lstm_hidden_size=8, net_arch=[8])"},
    ),
    "dqn": (EnvironmentSpec("CartPole-v1"), Algorithm.DQN, {**_SMALL, "target_update_interval": 10}),
    "qrdqn": (EnvironmentSpec("CartPole-v1"), Algorithm.QRDQN, _SMALL),
    "sac": (EnvironmentSpec("Pendulum-v1"), Algorithm.SAC, {**_SMALL, "normalize": "dict(norm_obs=True)"}),
    "td3": (
        EnvironmentSpec("Pendulum-v1"),
        Algorithm.TD3,
        {**_SMALL, "noise_type": "normal", "noise_std": 0.1, "train_freq": [1, "episode"], "gradient_steps": 2},
    ),
    "ddpg": (EnvironmentSpec("Pendulum-v1"), Algorithm.DDPG, _SMALL),
    "tqc": (EnvironmentSpec("Pendulum-v1"), Algorithm.TQC, _SMALL),
    "crossq": (EnvironmentSpec("Pendulum-v1"), Algorithm.CROSSQ, {**_SMALL, "policy_kwargs": "dict(net_arch=[8])"}),
    "ars": (EnvironmentSpec("CartPole-v1"), Algorithm.ARS, {"n_delta": 2}),
    "maskable": (
        EnvironmentSpec("Masked-v0", "tests.support.environments_for_tests.masked:Masking"),
        Algorithm.MASKABLE_PPO,
        {"n_steps": 16, "batch_size": 16},
    ),
    "her": (
        EnvironmentSpec(BIT_FLIPPING["env"], BIT_FLIPPING["env_gym_entrypoint"], kwargs=BIT_FLIPPING["env_kwargs"]),
        Algorithm.DQN,
        {**_SMALL, "replay_buffer_class": "HerReplayBuffer", "replay_buffer_kwargs": "dict(n_sampled_goal=2)"},
    ),
}

#: Those that each take another way; the others are a soak test.
_ALWAYS = ("ppo", "recurrent", "dqn", "sac", "her")


def job_of(name: str, folder: Path, total: int, **changes: Any) -> TrainingJob:
    spec, algorithm, hyperparameters = CASES[name]
    return TrainingJob(
        **{
            "experiment": name,
            "spec": spec,
            "settings": parse_settings({}),
            "algorithm": algorithm,
            "hyperparameters": hyperparameters,
            "n_envs": 1,
            "seed": 3,
            "total_timesteps": total,
            "checkpoint_every": 60,
            "keep_replay_buffer": True,
            "folder": DataRoot(str(folder)),
            "threads": 1,
            **changes,
        }
    )


def run(job: TrainingJob) -> list[Event]:
    """What is heard of a training in this process."""
    events: list[Event] = []
    record = read_record(job.folder) or TrainingRecord(job.begun_as, job.total_timesteps, job.checkpoint_every)
    threads = torch.get_num_threads()
    try:
        train_agent(job, record, events.append)
    finally:
        torch.set_num_threads(threads)
    return events


@pytest.mark.filterwarnings("ignore")  # of algorithms about such short trainings
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in _ALWAYS else pytest.mark.soak) for name in CASES]
)
def test_training_goes_on_with_weights_optimisers_and_counters_and_plays_as_stable_baselines_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlhfblender_core.train import trainer
    from rlhfblender_core.train.arguments import algorithm_class

    run(job_of(name, tmp_path, 120))
    restored: list[Any] = []
    monkeypatch.setattr(trainer._Training, "run", lambda self, agent: restored.append(agent))
    first = run(job_of(name, tmp_path, 240))
    (agent,) = restored
    model = max(tmp_path.glob("rl_model_*_steps.zip"), key=lambda file: int(file.name.split("_")[2]))
    own = algorithm_class(CASES[name][1]).load(model, agent.env if name == "her" else None)

    assert [event.step for event in first if isinstance(event, Started)] == [own.num_timesteps]
    assert _equal(agent.get_parameters(), own.get_parameters())
    assert (agent._n_updates, agent._episode_num) == (own._n_updates, own._episode_num)
    observation = agent.env.reset()
    assert np.array_equal(
        agent.predict(observation, deterministic=True)[0], own.predict(observation, deterministic=True)[0]
    )
    if getattr(agent, "replay_buffer", None) is not None:
        assert agent.replay_buffer.size() >= own.num_timesteps - 1
        agent.replay_buffer.sample(4, agent.get_vec_normalize_env())

    monkeypatch.undo()
    later = run(job_of(name, tmp_path, own.num_timesteps + 120))
    written = [event.step for event in later if isinstance(event, CheckpointWritten)]
    record = read_record(DataRoot(str(tmp_path)))
    assert min(written) > own.num_timesteps
    assert record is not None
    assert [entry["step"] for entry in record.resumed_at][-1] == own.num_timesteps
    assert len(list(tmp_path.glob("*replay_buffer*"))) <= 1
    assert not (tmp_path / ".runs").exists()


def test_unfinished_files_lie_in_the_runs_own_folder_which_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    flush = os.fsync

    def watched(descriptor: int) -> None:
        seen.update(file.name for file in tmp_path.rglob("*") if file.is_file() and RUNS not in file.parts)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    run(job_of("recurrent", tmp_path, 60))
    assert seen == {"training.json", "args.yml", "config.yml", "rl_model_60_steps.zip"}
    assert "ppo_lstm" in (tmp_path / "CartPole-v1" / "args.yml").read_text()  # RL Zoo's name


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(_equal, left, right))
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else bool(left == right)


def test_statistics_go_on_where_they_were(tmp_path: Path) -> None:
    from stable_baselines3.common.vec_env import VecNormalize

    from rlhfblender_core.train.agent import make_agent, restore_agent
    from rlhfblender_core.train.environments import make_environments

    job = job_of("ppo", tmp_path, 64, checkpoint_every=64)
    run(job)
    env = make_environments(job)
    agent = make_agent(job, env)
    file = tmp_path / "rl_model_vecnormalize_64_steps.pkl"
    restore_agent(agent, tmp_path / "rl_model_64_steps.zip", file)
    own = VecNormalize.load(str(file), env.venv)
    for mine, theirs in ((env.obs_rms, own.obs_rms), (env.ret_rms, own.ret_rms)):
        assert np.array_equal(mine.mean, theirs.mean)
        assert np.array_equal(mine.var, theirs.var)
        assert mine.count == theirs.count
    with pytest.raises(CheckpointNotUsableError, match="lost its VecNormalize statistics"):
        restore_agent(agent, tmp_path / "rl_model_64_steps.zip", None)


def test_schedules_go_on_at_the_right_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stable_baselines3 import PPO

    rates: list[float] = []
    original = PPO.train

    def watched(self: Any) -> None:
        original(self)
        rates.append(self.policy.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(PPO, "train", watched)
    hyperparameters = {"n_steps": 20, "batch_size": 20, "learning_rate": "lin_0.01"}
    run(job_of("ppo", tmp_path, 60, hyperparameters=hyperparameters))
    rates.clear()
    run(job_of("ppo", tmp_path, 120, hyperparameters=hyperparameters))
    assert rates[0] == pytest.approx(0.01 * (1 - 80 / 120))  # after 20 of the 60 steps that were left


def test_without_its_replay_buffer_an_agent_acts_before_it_learns_on(tmp_path: Path) -> None:
    from stable_baselines3 import DQN

    run(job_of("dqn", tmp_path, 60, keep_replay_buffer=False))
    run(job_of("dqn", tmp_path, 75, keep_replay_buffer=False))
    before, after = (DQN.load(tmp_path / f"rl_model_{step}_steps.zip") for step in (60, 75))
    assert after._n_updates == before._n_updates  # learning_starts is 20
    run(job_of("dqn", tmp_path, 120, keep_replay_buffer=False))
    assert DQN.load(tmp_path / "rl_model_120_steps.zip")._n_updates > after._n_updates
    record = read_record(DataRoot(str(tmp_path)))
    assert record is not None
    assert "the replay buffer is filled anew before learning goes on" in record.resumed_at[0]["not_bit_equal"]


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["PAYLOAD"],)


def test_nothing_of_a_foreign_folder_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYLOAD", str(tmp_path / "ran"))
    job = job_of("ppo", tmp_path / "models", 60)
    run(job)
    model = tmp_path / "models" / "rl_model_60_steps.zip"
    with zipfile.ZipFile(model) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in ("policy.optimizer.pth", "policy.pth"):
        with zipfile.ZipFile(model, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, pickle.dumps(_Payload()) if member == name else content)
        with pytest.raises(CheckpointNotUsableError):
            run(job_of("ppo", tmp_path / "models", 120))
    data = json.loads(members["data"])
    data["learning_rate"] = {":type:": "x", ":serialized:": "gASVAAAA"}
    with zipfile.ZipFile(model, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, json.dumps(data) if member == "data" else content)
    statistics = tmp_path / "models" / "rl_model_vecnormalize_60_steps.pkl"
    whole = statistics.read_bytes()
    statistics.write_bytes(pickle.dumps(_Payload()))
    with pytest.raises(CheckpointNotUsableError):
        run(job_of("ppo", tmp_path / "models", 120))
    statistics.write_bytes(whole)
    run(job_of("ppo", tmp_path / "models", 120))  # what isn't needed isn't read
    assert not (tmp_path / "ran").exists()


SPACED = {"env": "Spaced-v0", "env_gym_entrypoint": "tests.support.environments_for_tests.spaced:Spaced"}
FAST: dict[str, Any] = {
    "env": "CartPole-v1",
    "exp": "study",
    "num_episodes": 1,
    "no_render": True,
    "max_steps_per_episode": 20,
    "n_envs": 1,
    "hyperparameters": {"n_steps": 32, "batch_size": 32, "n_epochs": 1},
    "workers": 1,
}


def episodes(data: Path) -> dict[str, int]:
    folder = data / "manifests" / "study"
    return {label.name: len(list(label.iterdir())) for label in sorted(folder.iterdir())}


def resumed_at(data: Path, label: str) -> Sequence[ResumedTraining]:
    """As the manifest of the checkpoint's first episode says."""
    file = data / "manifests" / "study" / label / "0.json"
    return parse_manifest(file.read_bytes(), str(file)).policy.resumed_at


def test_a_training_makes_the_baseline_and_each_checkpoints_episodes_and_trains_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = train(**FAST, total_timesteps=100, checkpoint_every=50, data_root=str(data))
    assert first.steps == (50, 100)
    assert episodes(data) == {"100": 1, "50": 1, "random": 1}
    again = train(**FAST, total_timesteps=100, checkpoint_every=50, data_root=str(data))
    assert (again.report.made, again.steps) == (0, (50, 100))
    on = train(exp="study", total_timesteps=150, data_root=str(data), num_episodes=1, workers=1)
    assert on.steps == (50, 100, 150)
    resumed = {label: resumed_at(data, label) for label in ("random", "50", "100", "150")}
    assert {label: [each.step for each in found] for label, found in resumed.items()} == {
        "random": [], "50": [], "100": [], "150": [100],
    }  # fmt: skip
    assert "environments start new episodes" in resumed["150"][0].not_bit_equal
    assert {row.checkpoint: row.made for row in on.report.checkpoints} == {"random": 0, "50": 0, "100": 0, "150": 1}
    with pytest.raises(InvalidParameterError, match="begun with n_epochs 1, not 2"):
        train(exp="study", hyperparameters={"n_epochs": 2}, total_timesteps=200, data_root=str(data))
    assert not (data / ".runs").exists()


def test_no_rollouts_registers_and_trains_only(tmp_path: Path) -> None:
    from rlhfblender_core import generate

    data = tmp_path / "data"
    result = train(**FAST, total_timesteps=50, checkpoint_every=50, no_rollouts=True, data_root=str(data))
    assert result.steps == (50,)
    assert not (data / "manifests").exists()
    made = generate(exp="study", num_episodes=1, data_root=str(data), workers=1)  # -1: the newest whole one
    assert [episode.checkpoint for episode in made] == ["50"]


def test_a_followed_training_without_rollouts_is_filled_by_watch_and_an_export_follows(tmp_path: Path) -> None:
    from rlhfblender_core import watch

    data, out = str(tmp_path / "data"), str(tmp_path / "out")
    flags: dict[str, Any] = {**FAST, "no_render": False, "max_steps_per_episode": 3, "checkpoint_every": 50}
    train(**flags, total_timesteps=50, no_rollouts=True, follow=True, data_root=data)
    report = watch(settle_seconds=0, workers=1, data_root=data, export_to=out)
    assert report.summary == "2 checkpoints filled: study/random, study/50"
    assert sorted(episode.checkpoint for episode in server_contract.check_folder(Path(out))) == [0, 50]
    trained = train(**flags, total_timesteps=100, export_to=out, data_root=data)
    assert trained.is_export_whole
    assert sorted(episode.checkpoint for episode in server_contract.check_folder(Path(out))) == [0, 50, 100]
    assert watch(settle_seconds=0, data_root=data).rows == []


@pytest.mark.parametrize(
    ("flags", "error", "match"),
    [
        (
            {"hyperparameters": {"n_stepz": 3}},
            InvalidParameterError,
            "no hyperparameter 'n_stepz'. Did you mean 'n_steps'",
        ),
        ({"hyperparameters": {"policy_kwargs": "dict(a=open('x'))"}}, InvalidParameterError, "isn't understood"),
        ({"hyperparameters": {"learning_rate": "exp_3"}}, InvalidParameterError, "linear schedule"),
        ({"hyperparameters": {"env_wrapper": "os.system"}}, CheckpointNotUsableError, "or wrap inside --env-gym"),
        ({"algorithm": "sac", "hyperparameters": {}}, SpacesDifferError, "can't learn in CartPole-v1"),
        (
            {**SPACED, "env_kwargs": {"observed": "text", "acted": "int64"}},
            SpacesDifferError,
            "its observation is Text",
        ),
        (
            {**SPACED, "env_kwargs": {"observed": "dict", "acted": "int64"}},
            SpacesDifferError,
            "its observation at 'inner' is Dict",
        ),
        ({"algorithm": "pppo"}, InvalidParameterError, "Unknown algorithm"),
        ({"total_timesteps": 0}, InvalidParameterError, "total-timesteps"),
        ({"checkpoints": [3]}, InvalidParameterError, "no part of a training"),
        ({"export_to": "data/out"}, InvalidParameterError, "would mix with the data root"),
    ],
)
def test_a_wrong_request_leaves_nothing_behind(
    flags: dict[str, Any], error: type[Exception], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=match):
        train(**{**FAST, "total_timesteps": 50, **flags}, data_root=str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_a_folder_of_another_trainer_is_not_trained_on(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "rl_model_10_steps.zip").write_bytes(b"x")
    with pytest.raises(InvalidParameterError, match=r"no training\.json"):
        train(**FAST, total_timesteps=50, model_path=str(tmp_path / "models"), data_root=str(tmp_path / "data"))
