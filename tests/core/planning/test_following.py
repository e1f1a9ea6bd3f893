"""Which checkpoints of a followed experiment are new: more steps than the chosen ones, or written later."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.planning.following import begin_following, episodes_wanted
from rlhfblender_core.planning.unfilled_checkpoints import find_waiting
from rlhfblender_core.registry import (
    CheckpointRecord,
    EnvironmentRecord,
    ExperimentRecord,
    Following,
    Registry,
    open_registry,
)
from rlhfblender_core.storage import DataRoot

MODEL = b"PK\x05\x06" + bytes(18)  # an empty archive


@pytest.fixture
def study(tmp_path: Path) -> ExperimentRecord:
    return ExperimentRecord(name="study", env_id="CartPole-v1", kind="trained", model_path=str(tmp_path / "models"))


@pytest.fixture
def registry(tmp_path: Path, study: ExperimentRecord) -> Iterator[Registry]:
    with open_registry(f"sqlite:///{tmp_path / 'rlhfblender.db'}") as opened:
        opened.ensure_environment(EnvironmentRecord(env_id="CartPole-v1"))
        opened.ensure_experiment(study)
        yield opened


def save(tmp_path: Path, name: str, written: float | None = None) -> None:
    file = tmp_path / "models" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(MODEL)
    if written is not None:
        os.utime(file, (written, written))


def ready(study: ExperimentRecord, following: Following, registry: Registry, tmp_path: Path) -> tuple[str, ...]:
    followed = replace(study, following=following)
    return find_waiting(followed, 1, DataRoot(str(tmp_path / "data")), registry, settle_seconds=0).ready


def test_more_steps_than_any_that_was_chosen(study: ExperimentRecord, registry: Registry, tmp_path: Path) -> None:
    for step in (100, 200, 300):
        save(tmp_path, f"rl_model_{step}_steps.zip", written=1000)
    registry.ensure_checkpoints("study", [CheckpointRecord(experiment="study", label="100", step=100)])
    assert ready(study, begin_following(study, registry, None, chosen=[200]), registry, tmp_path) == ("300",)
    assert ready(study, begin_following(study, registry, None), registry, tmp_path) == ("200", "300")


def test_nothing_that_is_there_is_newer_than_the_final_model(
    study: ExperimentRecord, registry: Registry, tmp_path: Path
) -> None:
    for name in ("rl_model_100_steps.zip", "rl_model_200_steps.zip", "CartPole-v1.zip", "best_model.zip"):
        save(tmp_path, name, written=1000)
    following = begin_following(study, registry, None, chosen=[None])
    assert ready(study, following, registry, tmp_path) == ()
    save(tmp_path, "rl_model_300_steps.zip", written=1000)  # copied with its old date
    save(tmp_path, "best_model.zip", written=time.time() + 1)
    assert ready(study, following, registry, tmp_path) == ("300", "best")


def test_without_a_chosen_one_all_are_new_and_a_baseline_that_was_asked_for_comes_first(
    study: ExperimentRecord, registry: Registry, tmp_path: Path
) -> None:
    following = begin_following(study, registry, None, has_baseline=True, num_episodes=3)  # there is no folder yet
    save(tmp_path, "rl_model_0_steps.zip")
    assert ready(study, following, registry, tmp_path) == ("random", "0")
    assert episodes_wanted("study", following, registry) == 3


def test_what_is_followed_goes_on_from_where_it_is(study: ExperimentRecord, registry: Registry) -> None:
    first = begin_following(study, registry, None, chosen=[100])
    for following in (first, begin_following(study, registry, None, chosen=[900])):
        registered = registry.ensure_experiment(replace(study, following=following))
        assert registered.following == first
    assert registry.update_experiment("study", {"following": None}).following is None


def test_only_checkpoints_can_be_followed(study: ExperimentRecord) -> None:
    with pytest.raises(InvalidParameterError, match="no model folder to follow"):
        begin_following(replace(study, kind="random", model_path=None), None, None)
