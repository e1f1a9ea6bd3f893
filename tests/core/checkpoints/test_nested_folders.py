"""Folders in folders, and names that trainers give: every model has a label, and none is left out in silence."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.checkpoints import choose_checkpoints, fetch_checkpoint, find_checkpoints, select_checkpoints
from rlhfblender_core.checkpoints.select import wanted_as
from rlhfblender_core.errors import CheckpointNotUsableError

ENV = "CartPole-v1"


@pytest.fixture
def fill(trained, tmp_path) -> Callable[..., Path]:
    """Puts copies of a model below a folder, under these paths; any other file is text."""

    def into(*names: str, others: tuple[str, ...] = ()) -> Path:
        for name in (*names, *others):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(trained("PPO").path, tmp_path / name)
        for name in others:
            (tmp_path / name).write_text("{}")
        return tmp_path

    return into


def found_in(path: object, **kwargs: object) -> dict[str, str]:
    return {found.label: found.url for found in find_checkpoints(str(path), ENV, **kwargs)}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        # A folder per step.
        (["10000/model.zip", "20000/model.zip"], ["10000", "20000"]),
        (["checkpoint_500/policy.zip", "checkpoint_1500/policy.zip"], ["500", "1500"]),
        (["10k/ppo", "1M/ppo"], ["10000", "1000000"]),
        (["files/checkpoints/step_100/agent.zip", "files/checkpoints/step_200/agent.zip"], ["100", "200"]),
        (["epoch_1/ppo.zip", "epoch_2/ppo.zip", "last/ppo.zip"], ["1", "2", "final"]),
        # Folders beside the final model, as Stable-Baselines3's callbacks are often told to make them.
        (
            ["final_model.zip", "checkpoints/rl_model_100_steps.zip", "best/best_model.zip"],
            ["100", "best", "final"],
        ),
        (["CartPole-v1.zip", "backup/CartPole-v1.zip"], ["backup-CartPole-v1", "final"]),
        (["best_model.zip", "old/best_model.zip", "old/rl_model_5_steps.zip"], ["5", "best", "old-best_model"]),
        (["rl_model_5_steps.zip", "old/rl_model_5_steps.zip"], ["5", "old-rl_model_5_steps"]),
        # Numbers as people write them.
        (["10_000.zip", "20_000.zip", "1_000_000.zip"], ["10000", "20000", "1000000"]),
        (["ppo_1,000.zip", "ppo_12,000.zip"], ["1000", "12000"]),
        (["ppo_1e5.zip", "ppo_2.5e6.zip"], ["100000", "2500000"]),
        (["step=100.zip", "step=200.zip"], ["100", "200"]),
        (["epoch=1-step=100.zip", "epoch=2-step=200.zip"], ["100", "200"]),
        (["seed1_100_timesteps.zip", "seed2_200_timesteps.zip"], ["100", "200"]),
        (["model-000100.zip", "model-002000.zip"], ["100", "2000"]),
        (["0.zip", "100.zip"], ["0", "100"]),
        # A day isn't a number of steps.
        (["ppo_20240105.zip"], ["final"]),
        (["ppo_20240105_5000.zip", "ppo_20240105_6000.zip"], ["5000", "6000"]),
        (["2024-01-05_12-30-00/model.zip"], ["final"]),
        (["ppo_20240105_123000.zip"], ["final"]),
        (["CartPole-v1__ppo__1__1700000000/agent.zip"], ["final"]),
        (["2024-01-05/m.zip", "2024-01-06/m.zip"], ["2024-01-05-m", "2024-01-06-m"]),
        (["20240105/5000.zip", "20240105/6000.zip"], ["5000", "6000"]),
        # Nor is a seed, a run's number, or one that isn't whole.
        (["seed_0/agent.zip", "seed_1/agent.zip"], ["seed_0-agent", "seed_1-agent"]),
        (["ppo_seed=3.zip", "ppo_seed=4.zip"], ["ppo_seed=3", "ppo_seed=4"]),
        (["PPO_1/agent.zip", "PPO_2/agent.zip"], ["PPO_1-agent", "PPO_2-agent"]),
        (
            ["ppo/CartPole-v1_1/CartPole-v1.zip", "ppo/CartPole-v1_2/CartPole-v1.zip"],
            ["ppo-CartPole-v1_1-CartPole-v1", "ppo-CartPole-v1_2-CartPole-v1"],
        ),
        (["ppo/CartPole-v1_1000/m.zip", "ppo/CartPole-v1_2000/m.zip"], ["1000", "2000"]),
        (["run1/1000.zip", "run2/1000.zip"], ["run1-1000", "run2-1000"]),
        (["ppo_CartPole-v1_run_1.zip", "ppo_CartPole-v1_run_2.zip"], ["1", "2"]),
        (["gamma0.99.zip", "gamma0.995.zip"], ["gamma0.99", "gamma0.995"]),
        (["ppo_0.9999.zip"], ["final"]),
        (["m_1000_rew9.5.zip", "m_2000_rew12.25.zip", "m_3000_rew20.zip"], ["1000", "2000", "3000"]),
        (["m_0.5M.zip", "m_1M.zip"], ["500000", "1000000"]),
        # Names that say nothing are labels themselves.
        (["alice.zip", "bob.zip"], ["alice", "bob"]),
        (["model.zip", "model (1).zip", "10000.zip"], ["10000", "model", "model (1)"]),
        (["random.zip", "all.zip"], ["model all", "model random"]),
        (["CartPole-v1.zip", "last_model.zip"], ["final", "last_model"]),
        (["modèle.zip", "another#1.zip"], ["another-1", "modèle"]),
        # The hub's cache has each file twice.
        (["blobs/0123", "snapshots/abc/ppo-CartPole-v1.zip"], ["final"]),
        # What is a model is known by its content.
        (["agent.pkl", "best.pt", "100.pth"], ["100", "best", "final"]),
        (["A_100.ZIP", "A_200.ZIP"], ["100", "200"]),
        # Another environment's folder isn't this one's.
        (["100/m.zip", "200/m.zip", "Pendulum-v1_1/Pendulum-v1.zip"], ["100", "200"]),
    ],
    ids=" ".join,
)
def test_every_model_has_its_label(fill, names, expected):
    folder = fill(*names, others=("logs/events.out.tfevents.1", "10000/notes.txt", "tb/PPO_1/events.x"))
    assert sorted(found_in(folder)) == sorted(expected)


def test_unzipped_models_in_folders_are_found(trained, tmp_path):
    for step in (100, 200):
        with zipfile.ZipFile(trained("PPO").path) as archive:
            archive.extractall(tmp_path / "run" / f"{step}" / "model")
    assert found_in(tmp_path) == {
        "100": str(tmp_path / "run/100/model"),
        "200": str(tmp_path / "run/200/model"),
    }


def test_several_runs_in_one_folder_are_not_mixed(fill):
    folder = fill("run_a/100.zip", "run_a/200.zip", "run_b/100.zip")
    with pytest.raises(CheckpointNotUsableError, match=r"Both .*run_a/100.zip.* and .*run_b/100.zip"):
        find_checkpoints(str(folder), ENV)
    assert sorted(found_in(folder, pattern="run_a/{step}.zip")) == ["100", "200"]
    folder = fill("s1/100.zip", "s2/200.zip")
    with pytest.raises(CheckpointNotUsableError, match="--checkpoint-pattern"):
        find_checkpoints(str(folder), ENV)


def test_a_step_of_a_folder_per_step_is_labelled_alike_when_it_is_given_alone(fill):
    folder = fill("10000/model.zip", "20000/model.zip", "named/CartPole-v1.zip")
    assert list(found_in(folder / "10000/model.zip")) == ["10000"]
    assert list(found_in(folder / "20000")) == ["final"]  # a folder of its own, as it was given
    assert list(found_in(folder / "named/CartPole-v1.zip")) == ["final"]


def test_settings_and_statistics_are_those_nearest_to_the_model(fill):
    folder = fill(
        "100/model.zip",
        "200/model.zip",
        others=("config.yml", "100/vecnormalize.pkl", "200/vecnormalize.pkl", "200/config.yml", "norm.pkl"),
    )
    first, second = find_checkpoints(str(folder), ENV)
    assert first.companions.config == str(folder / "config.yml")
    assert first.companions.vecnormalize == str(folder / "100/vecnormalize.pkl")
    assert second.companions.config == str(folder / "200/config.yml")
    assert second.companions.pickles == (str(folder / "200/vecnormalize.pkl"),)


def test_which_of_several_names_is_the_latest_is_asked(fill):
    found = find_checkpoints(str(fill("alice.zip", "bob.zip")), ENV)
    with pytest.raises(CheckpointNotUsableError, match="alice, bob"):
        select_checkpoints(found, [-1])
    assert [file.label for file in select_checkpoints(found, ["bob", "all"])] == ["bob", "alice"]


def test_the_checkpoint_of_step_0_can_be_asked_for(fill):
    found = find_checkpoints(str(fill("m_0.zip", "m_10.zip")), ENV)
    assert [wanted_as(label) for label in ("0", "10", "final")] == [":0", 10, "final"]
    chosen, notes = choose_checkpoints(found, [wanted_as("0")])
    assert ([file.label for file in chosen], notes) == (["0"], ())


def test_more_than_can_be_looked_through_is_said(fill, monkeypatch):
    from rlhfblender_core.checkpoints import models

    folder = fill("a_1.zip", "a_2.zip", "b/c/d.zip", "e/f.zip")
    monkeypatch.setattr(models, "_MOST_FOLDERS", 2)
    with pytest.raises(CheckpointNotUsableError, match="more than 2 folders"):
        find_checkpoints(str(folder), ENV)
    monkeypatch.setattr(models, "_MOST_FILES", 1)
    with pytest.raises(CheckpointNotUsableError, match="more than 1 files"):
        find_checkpoints(str(folder), ENV)


def test_a_nested_checkpoint_loads(fill, tmp_path):
    (found,) = (file for file in find_checkpoints(str(fill("10/m.zip", "20/m.zip")), ENV) if file.label == "20")
    assert fetch_checkpoint(found, tmp_path / "cache").algorithm == "PPO"


def test_remote_folders_of_folders_are_searched_alike(trained):
    import fsspec

    storage = fsspec.filesystem("memory")
    for step in (10, 20):
        storage.pipe(f"/nested/run/{step}/model.zip", trained("PPO").path.read_bytes())
    assert sorted(found_in("memory://nested/run")) == ["10", "20"]
    storage.rm("/nested", recursive=True)
