"""Checkpoints are found in RL Zoo's, SB3's and hubs' layouts, on local disks and on any fsspec storage."""

import json
from pathlib import Path

import fsspec
import pytest

from rlhfblender_core.checkpoints import fetch_checkpoint, find_checkpoints, select_checkpoints
from rlhfblender_core.checkpoints.naming import step_pattern
from rlhfblender_core.errors import (
    CheckpointNotUsableError,
    InvalidParameterError,
    NoCheckpointYetError,
    StorageNotUsableError,
)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def labels(path: object, env: str = "CartPole-v1") -> list[str]:
    return [found.label for found in find_checkpoints(str(path), env)]


def test_zoo_folder_gives_steps_best_and_final(tmp_path):
    touch(
        tmp_path,
        "CartPole-v1.zip",
        "best_model.zip",
        "rl_model_20000_steps.zip",
        "rl_model_9000_steps.zip",
        "evaluations.npz",
    )
    assert labels(tmp_path) == ["9000", "20000", "best", "final"]


def test_a_training_that_has_just_begun_is_told_from_a_folder_without_checkpoints(tmp_path):
    touch(tmp_path, "training.json", "CartPole-v1/config.yml", ".runs/ab12/model.zip")
    with pytest.raises(NoCheckpointYetError, match="has written no checkpoint yet"):
        labels(tmp_path)
    (tmp_path / "training.json").unlink()
    with pytest.raises(CheckpointNotUsableError, match=r"it holds CartPole-v1/\. Give") as refused:
        labels(tmp_path)
    assert not isinstance(refused.value, NoCheckpointYetError)


@pytest.mark.parametrize("prefix", ["rl_model_", "ppo_cartpole_", "my-run_", ""])
def test_checkpoint_callback_may_have_any_prefix(tmp_path, prefix):
    touch(
        tmp_path,
        f"{prefix}100_steps.zip",
        f"{prefix}200_steps.zip",
        f"{prefix}vecnormalize_100_steps.pkl",
        "vecnormalize.pkl",
    )
    first, second = find_checkpoints(str(tmp_path), "CartPole-v1")
    assert (first.step, second.step) == (100, 200)
    assert first.companions.vecnormalize == str(tmp_path / f"{prefix}vecnormalize_100_steps.pkl")
    assert second.companions.vecnormalize == str(tmp_path / "vecnormalize.pkl")


def test_agents_settings_lie_in_the_folder_named_like_the_model(tmp_path):
    names = ("args.yml", "config.yml", "env_kwargs.yml", "vecnormalize.pkl")
    touch(tmp_path, "LunarLander-v2.zip", "rl_model_5_steps.zip", *(f"LunarLander-v2/{name}" for name in names))
    for found in find_checkpoints(str(tmp_path), "LunarLander-v3"):
        held = found.companions
        assert (held.args, held.config, held.env_kwargs, held.vecnormalize) == tuple(
            str(tmp_path / "LunarLander-v2" / name) for name in names
        )


@pytest.mark.parametrize("names", [["best_model.zip"], ["rl_model_5_steps.zip", "PongNoFrameskip-v4.zip"]])
def test_settings_of_an_agent_of_another_id_are_found(tmp_path, names):
    run = touch(tmp_path / "PongNoFrameskip-v4_1", *names, "PongNoFrameskip-v4/config.yml")
    for found in find_checkpoints(str(run), "ALE/Pong-v5"):
        assert found.companions.config == str(run / "PongNoFrameskip-v4" / "config.yml")


def test_hub_repository_has_its_settings_beside_the_model(tmp_path):
    touch(
        tmp_path,
        "ppo-CartPole-v1.zip",
        "args.yml",
        "config.yml",
        "env_kwargs.yml",
        "vec_normalize.pkl",
        "ppo-CartPole-v1/data",
    )
    (found,) = find_checkpoints(str(tmp_path), "CartPole-v1")
    assert found.label == "final"
    assert found.companions.vecnormalize == str(tmp_path / "vec_normalize.pkl")
    assert found.companions.config == str(tmp_path / "config.yml")


def test_algorithm_folder_gives_the_run_of_the_highest_number(tmp_path):
    touch(tmp_path, "CartPole-v1_2/CartPole-v1.zip", "CartPole-v1_10/CartPole-v1.zip", "CartPole-v0_99/CartPole-v0.zip")
    (found,) = find_checkpoints(str(tmp_path), "CartPole-v1")
    assert found.url == str(tmp_path / "CartPole-v1_10" / "CartPole-v1.zip")


@pytest.mark.parametrize("env", ["ALE/Pong-v5", "PongNoFrameskip-v4"])
def test_environments_with_a_slash_and_older_versions_count(tmp_path, env):
    name = env.replace("/", "-").replace("-v5", "-v4")
    touch(tmp_path, f"{name}_1/{name}.zip", f"{name}_1/other.zip")
    found, other = find_checkpoints(str(tmp_path), env)
    assert (found.label, other.label) == ("final", "other")
    assert found.url.endswith(f"{name}_1/{name}.zip")


def test_single_zip_is_named_by_its_file(tmp_path):
    touch(tmp_path, "a_7000_steps.zip", "best_model.zip", "whatever.zip", "CartPole-v1/args.yml")
    for name, label in (("a_7000_steps.zip", "7000"), ("best_model.zip", "best"), ("whatever.zip", "final")):
        (found,) = find_checkpoints(str(tmp_path / name), "CartPole-v1")
        assert found.label == label
        assert found.companions.args == str(tmp_path / "CartPole-v1" / "args.yml")


def test_only_zip_of_another_name_is_the_final_model(tmp_path):
    assert labels(touch(tmp_path, "my_agent.zip")) == ["final"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "holds no zip files"),
        (("Pendulum-v1_1/a.zip", "Acrobot-v1_1/a.zip"), "holds Acrobot-v1_1/, Pendulum-v1_1/"),
    ],
)
def test_folder_without_checkpoints_says_what_it_holds(tmp_path, names, said):
    with pytest.raises(CheckpointNotUsableError, match=said):
        find_checkpoints(str(touch(tmp_path, *names)), "CartPole-v1")


def test_missing_places_are_one_line(tmp_path):
    touch(tmp_path, "notes.txt", "CartPole-v1.zip")
    for path in (tmp_path / "none", tmp_path / "none.zip", tmp_path / "none" / "a.zip", tmp_path / "notes.txt"):
        with pytest.raises(CheckpointNotUsableError) as caught:
            find_checkpoints(str(path), "CartPole-v1")
        assert "\n" not in str(caught.value)
    with pytest.raises(StorageNotUsableError, match="can't be opened"):
        find_checkpoints("nosuch://bucket/folder", "CartPole-v1")


def test_two_models_of_the_same_step_are_ambiguous(tmp_path):
    with pytest.raises(CheckpointNotUsableError, match="Give the path of one"):
        find_checkpoints(str(touch(tmp_path, "a_5_steps.zip", "b_5_steps.zip")), "CartPole-v1")


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [([-1], ["final"]), ([20, 5, "20", -1, "final"], ["20", "5", "final"]), (["best"], ["best"]), ([], [])],
)
def test_wanted_checkpoints_come_in_order_and_once(tmp_path, wanted, chosen):
    found = find_checkpoints(
        str(touch(tmp_path, "x_5_steps.zip", "x_20_steps.zip", "best_model.zip", "CartPole-v1.zip")), "CartPole-v1"
    )
    assert [checkpoint.label for checkpoint in select_checkpoints(found, wanted)] == chosen


@pytest.mark.parametrize(
    ("names", "latest"),
    [(["a_5_steps.zip", "a_30_steps.zip", "best_model.zip"], "30"), (["best_model.zip"], "best")],
)
def test_latest_is_the_final_model_or_the_highest_step_or_the_best(tmp_path, names, latest):
    found = find_checkpoints(str(touch(tmp_path, *names)), "CartPole-v1")
    assert select_checkpoints(found, [-1])[0].label == latest


def test_unknown_step_names_those_that_exist(tmp_path):
    found = find_checkpoints(str(touch(tmp_path, "a_5_steps.zip", "CartPole-v1.zip")), "CartPole-v1")
    with pytest.raises(CheckpointNotUsableError, match=r"no checkpoint '7'.*5, final"):
        select_checkpoints(found, [7])


def test_remote_checkpoint_is_downloaded_once_under_its_hash(trained, tmp_path):
    model = trained("PPO")
    storage = fsspec.filesystem("memory")
    storage.pipe("/agents/test_remote/PPO.zip", model.path.read_bytes())
    (found,) = find_checkpoints("memory://agents/test_remote", "CartPole-v1")
    ref = fetch_checkpoint(found, tmp_path)
    assert Path(ref.path).name == f"{ref.sha256}.zip"
    assert Path(ref.path).read_bytes() == model.path.read_bytes()
    written = Path(ref.path).stat().st_mtime_ns
    assert fetch_checkpoint(found, tmp_path) == ref
    assert Path(ref.path).stat().st_mtime_ns == written
    Path(ref.path).write_bytes(b"damaged")
    assert fetch_checkpoint(found, tmp_path) == ref
    assert Path(ref.path).read_bytes() == model.path.read_bytes()
    assert not list(tmp_path.glob(".part*"))
    storage.rm("/agents/test_remote", recursive=True)


def test_local_checkpoint_is_used_where_it_is(trained, tmp_path):
    model = trained("PPO")
    ref = fetch_checkpoint(find_checkpoints(str(model.path), "X-v0")[0], tmp_path / "cache")
    assert ref.path == str(model.path)
    assert not (tmp_path / "cache").exists()


def test_a_pattern_with_very_many_stars_is_refused_before_it_is_tried():
    with pytest.raises(InvalidParameterError, match="at most 3 stars"):
        step_pattern("*a" * 20 + "{step}")
    assert step_pattern("*_a*{step}*.zip").fullmatch("x_a_70_b.zip")[1] == "70"


@pytest.mark.parametrize("url", ["reference://::{}", "reference::{}", "simplecache::reference://::{}"])
def test_recipes_for_files_are_not_followed(tmp_path, url):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"version": 1, "templates": {"u": "x"}, "refs": {"a_5_steps.zip": ["{{u}}", 0, 9]}}))
    assert fsspec.filesystem("reference", fo=str(recipe)).ls("", detail=False) == ["a_5_steps.zip"]  # the control
    with pytest.raises(StorageNotUsableError, match="a recipe for files"):
        find_checkpoints(url.format(recipe), "CartPole-v1")
