"""Watching a model folder: what has no data yet is made, what is being written waits."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli.progress import TerminalDisplay, current_display
from flows.generate import generate as generate_flow
from flows.watch import watch
from tests.support import server_contract

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def models(tmp_path: Path, trained_cartpole: Path) -> Path:
    """A model folder with one checkpoint, saved an hour ago."""
    folder = tmp_path / "models"
    folder.mkdir()
    save(folder, trained_cartpole / "rl_model_128_steps.zip", age=3600)
    return folder


def save(folder: Path, model: Path, age: float) -> Path:
    target = folder / model.name
    shutil.copy(model, target)
    os.utime(target, (time.time() - age,) * 2)
    return target


@pytest.fixture
def experiment(models: Path, data_root: Path) -> str:
    state = generate_flow(
        env="CartPole-v1",
        exp="study",
        model_path=str(models),
        register_only=True,
        follow=True,
        data_root=str(data_root),
        return_state=True,
    )
    assert state.is_completed()
    return "study"


def look(data_root: Path, **parameters: Any) -> Any:
    return watch(**{"num_episodes": 1, "data_root": str(data_root), **parameters}, return_state=True)


def made(data_root: Path) -> list[str]:
    return sorted(path.parent.name for path in data_root.glob("manifests/study/*/0.json"))


def children_of(state: Any) -> list[Any]:
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

    parent = FlowRunFilterParentFlowRunId(any_=[state.state_details.flow_run_id])
    with get_client(sync_client=True) as client:
        return list(client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent)))


def test_a_look_at_no_followed_experiment_says_how_one_is(data_root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = current_display.set(TerminalDisplay())
    try:
        assert look(data_root).message == "0 checkpoints filled"
    finally:
        current_display.reset(before)
    assert "No experiment is followed: give --follow" in capfd.readouterr().err


def test_a_look_makes_what_is_new_and_leaves_what_is_being_written(
    experiment: str, models: Path, trained_cartpole: Path, data_root: Path, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    # A little in the future: it has just been written, though the first look may take a minute.
    fresh = save(models, trained_cartpole / "rl_model_256_steps.zip", age=-50)
    state = look(data_root)
    assert state.message == "1 checkpoint filled: study/128; still being written: study/256"
    assert made(data_root) == ["128"]
    before = snapshot(data_root)
    os.utime(fresh, (time.time() - 120,) * 2)
    state = look(data_root, exp=[experiment])
    assert state.message == "1 checkpoint filled: study/256"
    after = snapshot(data_root)
    assert {path: after[path] for path in before} == before
    assert made(data_root) == ["128", "256"]
    assert look(data_root).message == "0 checkpoints filled"


def test_a_broken_checkpoint_does_not_keep_the_others_from_being_made(
    experiment: str, models: Path, trained_cartpole: Path, data_root: Path
) -> None:
    broken = save(models, trained_cartpole / "rl_model_256_steps.zip", age=3600)
    broken.write_bytes(broken.read_bytes()[:1000])
    os.utime(broken, (time.time() - 3600,) * 2)
    state = look(data_root)
    assert state.is_failed()
    assert state.message.startswith("1 checkpoint filled: study/128; 1 problem: study/256: ")
    assert made(data_root) == ["128"]
    assert [run.state.name for run in children_of(state)] == ["Completed"]
    # Told once; a run that fails every quarter of an hour would hide the next one that breaks.
    state = look(data_root)
    assert (state.is_completed(), state.message) == (
        True,
        "0 checkpoints filled; can't be used, as reported before: study/256",
    )
    assert look(data_root).is_completed()
    save(models, trained_cartpole / "rl_model_256_steps.zip", age=3600)
    assert look(data_root).message == "1 checkpoint filled: study/256"


@pytest.mark.soak
def test_a_model_that_changed_since_its_episodes_were_made_is_left_alone(
    experiment: str, models: Path, trained_cartpole: Path, data_root: Path
) -> None:
    look(data_root)
    shutil.copy(trained_cartpole / "rl_model_256_steps.zip", models / "rl_model_128_steps.zip")
    assert look(data_root, settle_seconds=0).message == "0 checkpoints filled"


def test_an_unknown_experiment_is_refused(experiment: str, data_root: Path) -> None:
    state = look(data_root, exp=["other"])
    assert state.name == "Refused"
    assert state.message == "No experiment 'other' is registered. Those that are: study."


def test_a_folder_that_is_gone_is_a_problem_of_its_experiment(experiment: str, models: Path, data_root: Path) -> None:
    shutil.rmtree(models)
    state = look(data_root)
    assert state.is_failed()
    assert "study: There is nothing at" in state.message


def test_a_checkpoint_of_step_0_has_its_episodes_too(
    experiment: str, models: Path, trained_cartpole: Path, data_root: Path
) -> None:
    shutil.copy(trained_cartpole / "rl_model_128_steps.zip", models / "rl_model_0_steps.zip")
    assert look(data_root, settle_seconds=0).message == "2 checkpoints filled: study/0, study/128"
    assert made(data_root) == ["0", "128"]


def test_only_followed_experiments_get_what_is_newer_than_what_was_chosen(
    models: Path, trained_cartpole: Path, data_root: Path
) -> None:
    """As many episodes as there are of the others, and the baseline level with them."""
    save(models, trained_cartpole / "rl_model_256_steps.zip", age=3600)
    same: dict[str, Any] = {"data_root": str(data_root), "no_render": True, "max_steps_per_episode": 5}
    same |= {"env": "CartPole-v1", "model_path": str(models), "return_state": True}
    for name, more in (("study", {"follow": True}), ("finished", {})):
        assert generate_flow(exp=name, checkpoints=[256], num_episodes=2, **same, **more).is_completed()
    assert generate_flow(exp="study", random=True, num_episodes=1, **{**same, "model_path": None}).is_completed()
    assert look(data_root, num_episodes=None).message == "0 checkpoints filled"
    new = models / "rl_model_384_steps.zip"
    shutil.copy(trained_cartpole / "rl_model_256_steps.zip", new)
    os.utime(new, (0, 0))
    assert look(data_root, num_episodes=None).message == "2 checkpoints filled: study/random, study/384"
    made = {folder.name: len(list(folder.iterdir())) for folder in (data_root / "manifests" / "study").iterdir()}
    assert made == {"random": 2, "256": 2, "384": 2}
    assert [folder.name for folder in (data_root / "manifests" / "finished").iterdir()] == ["256"]
    # Named, one that isn't followed gets what is newer than its own, too.
    assert look(data_root, num_episodes=None, exp=["finished"]).message == "1 checkpoint filled: finished/384"


def test_register_follows_and_unfollows(
    models: Path,
    data_root: Path,
    command_line: Callable[..., Any],
    trained_cartpole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(models.parent)
    generate_flow(
        env="CartPole-v1", exp="study", model_path=str(models), num_episodes=1, no_render=True,
        data_root=str(data_root), return_state=True,
    )  # fmt: skip
    done = command_line("register", "--exp", "study", "--follow", "--data-root", data_root)
    assert done.out.endswith(f"for checkpoints in {models.name}, newer than step 128.\n"), done
    save(models, trained_cartpole / "rl_model_256_steps.zip", age=3600)
    done = command_line("register", "--exp", "study", "--unfollow", "--list", "--data-root", data_root)
    assert "Experiment study is not followed." in done.out
    assert look(data_root).message == "0 checkpoints filled"
    command_line("register", "--exp", "study", "--follow", "--data-root", data_root)
    assert look(data_root).message == "1 checkpoint filled: study/256"
    for flags in (("--follow",), ("--exp", "study", "--follow", "--unfollow"), ("--exp", "no", "--follow")):
        assert command_line("register", *flags, "--data-root", data_root).code == 2


def test_a_random_experiment_has_nothing_to_follow(data_root: Path) -> None:
    state = generate_flow(env="CartPole-v1", random=True, follow=True, data_root=str(data_root), return_state=True)
    assert state.name == "Refused"
    assert "has no model folder to follow" in state.message
    assert not data_root.exists()


@pytest.mark.soak
def test_an_export_follows(experiment: str, data_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert look(data_root, export_to=str(out)).message == "1 checkpoint filled: study/128"
    assert [episode.checkpoint for episode in server_contract.check_folder(out)] == [128]
    assert look(data_root, export_to=str(out)).is_completed()
    assert look(data_root, export_to=str(data_root)).name == "Refused"
