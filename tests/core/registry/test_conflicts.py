"""The pure functions that decide whether a plan fits what is registered."""

import dataclasses
from typing import Any

import pytest

from rlhfblender_core.registry import EnvironmentRecord, ExperimentRecord, environment_conflict, experiment_conflict
from rlhfblender_core.registry.conflicts import experiment_changes

ENVIRONMENT = EnvironmentRecord(env_id="Maze-v0", entry_point="maze:Maze", additional_packages=("maze", "walls"))
EXPERIMENT = ExperimentRecord(
    name="E",
    env_id="Maze-v0",
    kind="trained",
    project="P",
    model_path="/m",
    settings={"seed": 0, "fps": 30},
    env_kwargs={"size": 3, "easy": True},
)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"entry_point": "other:Maze"}, 'entry point = "maze:Maze", but "other:Maze" was given'),
        ({"additional_packages": ("maze",)}, 'additional packages = ["maze", "walls"], but ["maze"] was given'),
    ],
)
def test_a_different_environment_is_told_by_its_first_difference(changes: dict[str, Any], difference: str) -> None:
    line = environment_conflict(ENVIRONMENT, dataclasses.replace(ENVIRONMENT, **changes))
    assert line is not None
    assert line.startswith(f"Environment 'Maze-v0' is registered with {difference}.")
    assert "another id" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "wanted",
    [
        ENVIRONMENT,
        EnvironmentRecord(env_id="Maze-v0"),
        EnvironmentRecord(env_id="Maze-v0", description="new", action_names=("a",)),
        EnvironmentRecord(env_id="Maze-v0", additional_packages=("walls", "maze")),
    ],
)
def test_an_environment_that_agrees_in_what_is_given_is_no_conflict(wanted: EnvironmentRecord) -> None:
    assert environment_conflict(ENVIRONMENT, wanted) is None


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"env_id": "Other-v0"}, 'environment = "Maze-v0", but "Other-v0" was asked for'),
        ({"project": "Q"}, 'project = "P", but "Q" was asked for'),
        ({"kind": "random", "model_path": None}, 'kind = "trained", but "random" was asked for'),
        ({"env_kwargs": {"size": 4, "easy": True}}, "size = 3, but 4 was asked for"),
        ({"env_kwargs": {"size": 3}}, "easy = true, but nothing was asked for"),
        ({"env_kwargs": {"size": 3, "easy": 1}}, "easy = true, but 1 was asked for"),
        (
            {"env_kwargs": {"size": 3, "easy": True, "max_episode_steps": 9}},
            "max_episode_steps = nothing, but 9 was asked for",
        ),
        ({"settings": {"seed": 0, "fps": 15}}, "fps = 30, but 15 was asked for"),
        ({"settings": {"seed": 0}}, "fps = 30, but nothing was asked for"),
        ({"settings": {"seed": 0, "fps": None}}, "fps = 30, but null was asked for"),
    ],
)
def test_a_different_experiment_is_told_by_its_first_difference(changes: dict[str, Any], difference: str) -> None:
    wanted = dataclasses.replace(EXPERIMENT, **changes)
    line = experiment_conflict(EXPERIMENT, wanted)
    assert line is not None
    assert line.startswith(f"Experiment 'E' is registered with {difference}.")
    never_replaced = "env_id" in changes or "project" in changes
    assert ("--overwrite" in line) == (not never_replaced)
    assert (experiment_conflict(EXPERIMENT, wanted, replace_settings=True) is not None) == never_replaced


def test_an_experiment_that_agrees_in_what_is_given_is_no_conflict() -> None:
    assert experiment_conflict(EXPERIMENT, EXPERIMENT) is None
    assert experiment_conflict(EXPERIMENT, ExperimentRecord(name="E", env_id="Maze-v0", kind="trained")) is None


def test_where_the_model_lies_and_what_spaces_there_are_may_change_at_any_time() -> None:
    wanted = dataclasses.replace(EXPERIMENT, model_path="/n", action_space={"n": 2})
    assert experiment_conflict(EXPERIMENT, wanted) is None
    changes = experiment_changes(EXPERIMENT, wanted, replace_settings=False)
    assert changes == {"model_path": "/n", "action_space": {"n": 2}}
    assert (
        experiment_changes(wanted, ExperimentRecord(name="E", env_id="Maze-v0", kind="trained"), replace_settings=False)
        == {}
    )


def test_long_values_are_shortened() -> None:
    line = experiment_conflict(EXPERIMENT, dataclasses.replace(EXPERIMENT, env_kwargs={"size": "x" * 1000}))
    assert line is not None
    assert len(line) < 400
