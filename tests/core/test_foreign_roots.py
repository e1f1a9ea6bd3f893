"""Training, watching, states and replays in a data root of somebody else: nothing that lies there is run.

Each payload comes with a control: read as its usual reader reads it, it does harm.
"""

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhfblender_core import import_data, open_data_set, watch
from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.environments import EnvironmentSpec, describe_environment
from rlhfblender_core.errors import DataNotUsableError, RLHFBlenderError
from rlhfblender_core.export.formats import ExportOptions
from rlhfblender_core.export.run import export_all
from rlhfblender_core.locations import locate
from rlhfblender_core.registry import EnvironmentRecord, ExperimentRecord, open_registry
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.train.run import train
from tests.core.train.test_training import job_of, run

CARTPOLE: dict[str, Any] = {
    "env": "CartPole-v1", "exp": "study", "num_episodes": 1, "max_steps_per_episode": 5, "n_envs": 1, "workers": 1,
}  # fmt: skip


class _Payload:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


@pytest.fixture
def payload(owned: Path) -> bytes:
    """A pickle that was seen to do harm."""
    content = pickle.dumps(_Payload(owned))
    pickle.loads(content)
    owned.rmdir()
    return content


def trained(folder: Path, **hyperparameters: Any) -> tuple[dict[str, Any], Path]:
    """A training that was begun in somebody's data root: its flags, and the folder of its checkpoints."""
    small = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, **hyperparameters}
    data = {"no_rollouts": True, "data_root": str(folder / "data")}
    flags = {**CARTPOLE, "hyperparameters": small, "checkpoint_every": 32, **data}
    train(**flags, total_timesteps=32)
    return flags, folder / "data" / "models" / "study"


def replaced(model: Path, name: str, content: bytes) -> None:
    """Puts another member into a checkpoint."""
    with zipfile.ZipFile(model) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    assert name in members
    with zipfile.ZipFile(model, "w") as archive:
        for member, known in members.items():
            archive.writestr(member, content if member == name else known)


def objects(owned: Path) -> bytes:
    """A replay buffer of objects, which numpy's own reader runs."""
    stream = io.BytesIO()
    np.savez(stream, pos=np.int64(1), full=np.bool_(False), actions=np.array([_Payload(owned)], dtype=object))
    stream.seek(0)
    with np.load(stream, allow_pickle=True) as arrays:
        assert len(arrays["actions"]) == 1
    owned.rmdir()
    return stream.getvalue()


def test_going_on_with_a_foreign_training_runs_nothing_of_its_files(
    owned: Path, payload: bytes, tmp_path: Path
) -> None:
    models, whole = tmp_path / "models", tmp_path / "whole"
    run(job_of("sac", models, 60))
    shutil.copytree(models, whole)
    model = models / "rl_model_60_steps.zip"
    with zipfile.ZipFile(model) as archive:
        members = [name for name in archive.namelist() if name.endswith(".pth")]
    assert {"policy.pth", "critic.optimizer.pth", "pytorch_variables.pth"} <= set(members)
    attacks: dict[str, Callable[[], object]] = {
        "statistics": lambda: next(models.glob("*vecnormalize*")).write_bytes(payload),
        "replay buffer": lambda: next(models.glob("*replay_buffer*")).write_bytes(objects(owned)),
        **{name: partial(replaced, model, name, payload) for name in members},
    }
    for name, attack in attacks.items():
        attack()
        with pytest.raises(RLHFBlenderError):
            run(job_of("sac", models, 90))
        assert not owned.exists(), name
        shutil.rmtree(models)
        shutil.copytree(whole, models)
    next(models.glob("*/config.yml")).write_bytes(payload)  # written anew
    run(job_of("sac", models, 90))
    assert not owned.exists()


def test_control_weights_that_torch_unpickles_do_harm(owned: Path, payload: bytes) -> None:
    with pytest.raises(RuntimeError, match="magic number"):  # seen too late
        torch.load(io.BytesIO(payload), weights_only=False)
    assert owned.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"hyperparameters": {"env_wrapper": "payload.Wrapper"}},
        pytest.param(
            {"hyperparameters": {"policy_kwargs": "dict(features_extractor_class=payload.Net)"}}, marks=pytest.mark.soak
        ),
        pytest.param(
            {"hyperparameters": {"policy_kwargs": {"activation_fn": "payload.Net(1)"}}}, marks=pytest.mark.soak
        ),
        pytest.param({"hyperparameters": {"replay_buffer_class": "payload.Buffer"}}, marks=pytest.mark.soak),
        pytest.param({"algorithm": "payload"}, marks=pytest.mark.soak),
        {"n_envs": 10**9},
        pytest.param({"n_envs": -1}, marks=pytest.mark.soak),
        pytest.param({"env": "payload:CartPole-v1"}, marks=pytest.mark.soak),
    ],
)
def test_what_a_foreign_record_of_a_training_names_is_not_used(
    changes: dict[str, Any], owned: Path, tmp_path: Path
) -> None:
    flags, models = trained(tmp_path)
    record = json.loads((models / "training.json").read_text())
    record["begun_as"] |= changes
    (models / "training.json").write_text(json.dumps(record))
    with pytest.raises(RLHFBlenderError):
        train(exp="study", total_timesteps=64, no_rollouts=True, data_root=flags["data_root"])
    assert not owned.exists()
    assert not [file for file in models.iterdir() if "64" in file.name]


@pytest.mark.parametrize("no_rollouts", [True, False])
@pytest.mark.parametrize("name", ["entry point", "package", "id", "wrapper"])
def test_training_runs_nothing_that_a_foreign_registry_names(
    name: str, no_rollouts: bool, owned: Path, tmp_path: Path
) -> None:
    named: dict[str, Any] = {
        "entry point": {"entry_point": "os:mkdir", "kwargs": {"path": str(owned)}},
        "package": {"env_id": "CartPole-v1", "additional_packages": ("payload",)},
        "id": {"env_id": "payload:CartPole-v1"},
        "wrapper": {"env_id": "CartPole-v1", "kwargs": {"env_wrapper": "payload.Wrapper"}},
    }[name]
    foreign(tmp_path / "data", **named)
    with pytest.raises(RLHFBlenderError):
        train(exp="h", total_timesteps=32, no_rollouts=no_rollouts, data_root=str(tmp_path / "data"), workers=1)
    assert not owned.exists()
    assert not (tmp_path / "data" / "models").exists()


def foreign(data_root: Path, **environment: Any) -> None:
    """A registry as somebody may have sent it: experiment ``h`` of an environment."""
    spaces = describe_environment(EnvironmentSpec("CartPole-v1"))
    kwargs, model_path = environment.pop("kwargs", {}), environment.pop("model_path", None)
    described = {"observation_space": spaces.observation_space, "action_space": spaces.action_space}
    record = EnvironmentRecord(**{"env_id": "Theirs-v0", **described, **environment})
    data_root.mkdir()
    with open_registry(f"sqlite:///{data_root / 'rlhfblender.db'}") as registry:
        registry.ensure_environment(record)
        settings = RolloutOptions(render=False).to_json()
        registry.ensure_experiment(
            ExperimentRecord(
                name="h",
                env_id=record.env_id,
                kind="trained",
                settings=settings,
                env_kwargs=kwargs,
                model_path=model_path,
            )
        )


def test_watching_a_foreign_experiment_runs_nothing_of_its_checkpoints(
    owned: Path, payload: bytes, tmp_path: Path
) -> None:
    flags, models = trained(tmp_path, normalize=True)
    train(**flags, total_timesteps=64, follow=True)
    replaced(models / "rl_model_32_steps.zip", "policy.pth", payload)
    (models / "rl_model_vecnormalize_64_steps.pkl").write_bytes(payload)
    report = watch(settle_seconds=0, workers=1, data_root=flags["data_root"])
    assert not owned.exists()
    assert not (Path(flags["data_root"]) / "manifests" / "study" / "32").exists()
    assert not (Path(flags["data_root"]) / "manifests" / "study" / "64").exists()
    assert {row.label for row in report.problems} == {"32", "64"}


def made(tmp_path: Path) -> Path:
    """A data root with an episode of CartPole, and its manifest's file."""
    from rlhfblender_core import generate

    generate(
        env="CartPole-v1", exp="E", random=True, num_episodes=1, max_steps_per_episode=5, workers=1,
        data_root=str(tmp_path / "data"),
    )  # fmt: skip
    return tmp_path / "data" / "manifests" / "E" / "random" / "0.json"


def rewritten(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a manifest as one may who knows how its own digest is made."""
    manifest = parse_manifest(file.read_bytes(), str(file))
    held = manifest.model_dump(mode="json")
    change(held)
    file.write_bytes(type(manifest).model_construct(**type(manifest).model_validate(held).__dict__).content)


@pytest.mark.parametrize("name", ["entry point", "package", "id", "wrapper"])
def test_states_and_replays_run_nothing_that_a_foreign_manifest_names(name: str, owned: Path, tmp_path: Path) -> None:
    file = made(tmp_path)

    def change(held: dict[str, Any]) -> None:
        if name == "wrapper":
            held["policy"] |= {"wrappers": ["payload.Wrapper"], "wrapper_kwargs": [{}]}
        else:
            held["environment"] |= {
                "entry point": {"entry_point": "os:mkdir", "kwargs": {"path": str(owned)}},
                "package": {"additional_packages": ["payload"]},
                "id": {"id": "payload:CartPole-v1"},
            }[name]

    rewritten(file, change)
    locations = locate(str(tmp_path / "data"), None)
    options = ExportOptions(env_states=True)
    report = export_all(str(tmp_path / "out"), "rlhfblender", ["E"], options, LocalRunner(), locations)
    assert not owned.exists()
    assert not list(tmp_path.glob("out/**/env_states_*"))
    (checkpoint,) = report.checkpoints
    assert sum(checkpoint.stateless.values()) + sum(checkpoint.left_out.values()) == 1
    (episode,) = open_data_set(str(tmp_path / "data"))
    with pytest.raises(RLHFBlenderError):
        list(episode.replay())
    assert not owned.exists()


@pytest.mark.parametrize("path", ["../outside.npz", "episodes/../../outside.npz", "{absolute}"])
def test_paths_of_a_foreign_manifest_lead_nowhere_else(path: str, tmp_path: Path) -> None:
    file = made(tmp_path)
    own = tmp_path / "data" / "episodes" / "E" / "random" / "0.npz"
    outside = tmp_path / "outside.npz"
    own.rename(outside)
    rewritten(file, lambda held: held["artifacts"]["episodes"].update(path=path.format(absolute=outside)))
    locations = locate(str(tmp_path / "data"), None)
    with pytest.raises(DataNotUsableError, match=r"0\.json is damaged"):
        export_all(str(tmp_path / "out"), "rlhfblender", ["E"], ExportOptions(), LocalRunner(), locations)
    with pytest.raises(DataNotUsableError, match=r"0\.json is damaged"):
        [list(episode.replay()) for episode in open_data_set(str(tmp_path / "data"))]
    assert not list(tmp_path.glob("out/**/*.npz"))
    assert outside.exists()


@pytest.mark.parametrize("exp", ["../../outside", "/tmp/outside", "a/../../../outside"])
def test_a_training_stays_below_its_data_root(exp: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(RLHFBlenderError):
        train(**{**CARTPOLE, "exp": exp}, total_timesteps=32, no_rollouts=True, data_root=str(tmp_path / "in/data"))
    assert [path.name for path in tmp_path.rglob("*") if path.name != "in"] == []
    assert not Path("/tmp/outside").exists()


def test_a_training_writes_nothing_where_only_a_foreign_registry_says(tmp_path: Path) -> None:
    elsewhere, flags = tmp_path / "elsewhere", {"no_rollouts": True, "data_root": str(tmp_path / "data"), "workers": 1}
    foreign(tmp_path / "data", env_id="CartPole-v1", model_path=str(elsewhere))
    small = {"hyperparameters": {"n_steps": 16, "batch_size": 16, "n_epochs": 1}, "n_envs": 1}
    with pytest.raises(RLHFBlenderError, match="no training was begun there"):
        train(exp="h", total_timesteps=16, **small, **flags)
    assert not elsewhere.exists()
    train(exp="h", total_timesteps=16, model_path=str(elsewhere), **small, **flags)
    assert train(exp="h", total_timesteps=32, **flags).steps[-1] == 32  # by now it is known where


def test_states_of_a_foreign_export_are_not_unpickled(owned: Path, tmp_path: Path) -> None:
    made(tmp_path)
    out = tmp_path / "out"
    locations = locate(str(tmp_path / "data"), None)
    export_all(str(out), "rlhfblender", ["E"], ExportOptions(env_states=True), LocalRunner(), locations)
    (file,) = out.glob("data/env_states/**/*.npy")
    states = np.load(file, allow_pickle=True)
    for (row,) in states:
        row["state"] = _Payload(owned)
    states[1:] = states[:1]
    np.save(file, states, allow_pickle=True)
    np.load(file, allow_pickle=True)  # as the server does
    owned.rmdir()
    (initial,) = out.glob("data/initial_states/*.pkl")
    initial.write_bytes(pickle.dumps([_Payload(owned)]))
    report = import_data(str(out), exp="Again", env="CartPole-v1", data_root=str(tmp_path / "again"))
    assert report.made == 1
    assert [note for note in report.notes if "env_states_0.npy: left out" in note]
    assert not owned.exists()
