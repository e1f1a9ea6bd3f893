"""What the registry promises, on SQLite and on PostgreSQL."""

import dataclasses
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from rlhfblender_core.errors import EnvironmentNotUsableError, InvalidParameterError, RegistryConflictError
from rlhfblender_core.registry import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentRecord,
    Following,
    Registry,
    open_registry,
)

CART_POLE = EnvironmentRecord(
    env_id="CartPole-v1",
    display_name="Cart pole",
    entry_point="gymnasium.envs.classic_control:CartPoleEnv",
    additional_packages=("one", "two"),
    observation_space={"type": "Box", "shape": [4]},
    action_space={"type": "Discrete", "n": 2},
    action_names=("left", "right"),
)
STUDY = ExperimentRecord(
    name="study",
    env_id="CartPole-v1",
    kind="trained",
    model_path="/models",
    settings={"seed": 0, "fps": None},
    env_kwargs={"sutton_barto_reward": True, "nested": {"size": (1, 2)}, "max_episode_steps": 500},
    observation_space={"type": "Box", "shape": [4]},
    action_space={"type": "Discrete", "n": 2},
    following=Following(after=100_000, since=datetime(2026, 1, 2, 3, tzinfo=UTC), num_episodes=3),
)
FINAL = CheckpointRecord(experiment="study", label="final", step=100_000, sha256="ab", algorithm="PPO")


def episode(number: int, **changes: Any) -> EpisodeRecord:
    first = EpisodeRecord(
        experiment="study",
        checkpoint="final",
        number=number,
        seed=2**63 - 1,
        episode_return=0.1,
        episode_length=7,
        terminated=True,
        truncated=False,
        request_digest="digest",
        manifest_sha256="cd",
    )
    return dataclasses.replace(first, **changes)


def without_times(record: Any) -> Any:
    cleared = {field.name: None for field in dataclasses.fields(record) if field.name.endswith("_at")}
    return dataclasses.replace(record, **cleared)


@pytest.fixture
def filled(registry: Registry) -> Registry:
    registry.ensure_environment(CART_POLE)
    registry.ensure_experiment(STUDY)
    registry.ensure_checkpoint(FINAL)
    return registry


def test_an_environment_comes_back_as_it_was_registered(registry: Registry) -> None:
    registered = registry.ensure_environment(CART_POLE)
    assert without_times(registered) == CART_POLE
    assert registry.find_environment("CartPole-v1") == registered
    assert registry.find_environment("Other-v0") is None


def test_timestamps_are_aware_and_in_utc(registry: Registry) -> None:
    before = datetime.now(UTC)
    registered = registry.ensure_environment(CART_POLE)
    for moment in (registered.created_at, registered.updated_at):
        assert moment is not None
        assert moment.utcoffset() == timedelta(0)
        assert before <= moment <= datetime.now(UTC)


def test_registering_the_same_environment_again_writes_nothing(registry: Registry) -> None:
    first = registry.ensure_environment(CART_POLE)
    assert registry.ensure_environment(CART_POLE) == first
    assert registry.ensure_environment(EnvironmentRecord(env_id="CartPole-v1")) == first


def test_names_and_spaces_of_an_environment_can_change_later(registry: Registry) -> None:
    first = registry.ensure_environment(CART_POLE)
    wanted = EnvironmentRecord(
        env_id="CartPole-v1", display_name="Pole", action_names=("l", "r"), action_space={"n": 3}
    )
    changed = registry.ensure_environment(wanted)
    expected = dataclasses.replace(CART_POLE, display_name="Pole", action_names=("l", "r"), action_space={"n": 3})
    assert without_times(changed) == expected
    assert changed.created_at == first.created_at
    assert first.updated_at is not None
    assert changed.updated_at is not None
    assert changed.updated_at > first.updated_at


def test_another_environment_under_a_registered_id_is_a_conflict(registry: Registry) -> None:
    first = registry.ensure_environment(CART_POLE)
    with pytest.raises(RegistryConflictError, match="additional packages"):
        registry.ensure_environment(EnvironmentRecord(env_id="CartPole-v1", additional_packages=("three",)))
    assert registry.list_environments() == [first]


def test_action_names_are_set_and_removed(registry: Registry) -> None:
    registry.ensure_environment(CART_POLE)
    assert registry.set_action_names("CartPole-v1", ["a", "b"]).action_names == ("a", "b")
    assert registry.set_action_names("CartPole-v1", None).action_names is None
    with pytest.raises(EnvironmentNotUsableError, match="'Other-v0' is not registered"):
        registry.set_action_names("Other-v0", ["a"])


def test_environments_are_listed_by_id(registry: Registry) -> None:
    for env_id in ("b-v0", "ALE/Pong-v5", "B-v0", "a-v0"):
        registry.ensure_environment(EnvironmentRecord(env_id=env_id))
    assert [record.env_id for record in registry.list_environments()] == ["ALE/Pong-v5", "B-v0", "a-v0", "b-v0"]


def test_an_experiment_comes_back_with_its_project(registry: Registry) -> None:
    registry.ensure_environment(CART_POLE)
    other = dataclasses.replace(STUDY, name="other", project="Poles")
    assert without_times(registry.ensure_experiment(STUDY)) == STUDY
    assert without_times(registry.ensure_experiment(other)) == other
    assert [project.name for project in registry.list_projects()] == ["Poles", "RLHF-Blender"]
    assert [record.name for record in registry.list_experiments()] == ["other", "study"]
    assert [record.name for record in registry.list_experiments("Poles")] == ["other"]
    assert registry.find_experiment("none") is None


def test_registering_the_same_experiment_again_writes_nothing(filled: Registry) -> None:
    first = filled.find_experiment("study")
    assert filled.ensure_experiment(STUDY) == first
    assert filled.ensure_experiment(ExperimentRecord(name="study", env_id="CartPole-v1", kind="trained")) == first


def test_an_experiment_of_an_unknown_environment_leaves_nothing_behind(registry: Registry) -> None:
    with pytest.raises(EnvironmentNotUsableError, match="not registered"):
        registry.ensure_experiment(STUDY)
    assert registry.list_projects() == []


def test_other_settings_for_an_experiment_are_a_conflict_until_replaced(filled: Registry) -> None:
    wanted = dataclasses.replace(STUDY, settings={"seed": 1}, model_path="/elsewhere")
    with pytest.raises(RegistryConflictError, match="seed = 0, but 1"):
        filled.ensure_experiment(wanted)
    assert without_times(filled.ensure_experiment(wanted, replace_settings=True)) == wanted
    assert without_times(filled.find_experiment("study")) == wanted


def test_the_environment_of_an_experiment_is_never_replaced(filled: Registry) -> None:
    filled.ensure_environment(EnvironmentRecord(env_id="Other-v0"))
    wanted = dataclasses.replace(STUDY, env_id="Other-v0")
    with pytest.raises(RegistryConflictError, match='environment = "CartPole-v1", but "Other-v0"'):
        filled.ensure_experiment(wanted, replace_settings=True)


def test_a_checkpoint_keeps_what_is_not_given_again(filled: Registry) -> None:
    known = filled.ensure_checkpoint(CheckpointRecord(experiment="study", label="final", sha256="ef"))
    assert known == dataclasses.replace(FINAL, sha256="ef")
    assert filled.list_checkpoints("study") == [known]


def test_checkpoints_are_listed_by_step(filled: Registry) -> None:
    for label, step in (("random", None), ("20000", 20_000), ("3000", 3_000)):
        filled.ensure_checkpoint(CheckpointRecord(experiment="study", label=label, step=step))
    assert [record.label for record in filled.list_checkpoints("study")] == ["3000", "20000", "final", "random"]


def test_a_checkpoint_needs_its_experiment(registry: Registry) -> None:
    with pytest.raises(InvalidParameterError, match="'study' is not registered"):
        registry.ensure_checkpoint(FINAL)


def test_episodes_come_back_as_recorded_in_order_of_their_numbers(filled: Registry) -> None:
    made = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    records = [episode(n, created_at=made) for n in (10, 2, 0)]
    filled.record_episodes(records)
    assert filled.list_episodes("study") == sorted(records, key=lambda record: record.number)
    assert filled.list_episodes("study", "random") == []
    assert filled.list_episodes("study")[0].created_at == made


def test_an_unknown_return_is_nan_and_an_unknown_seed_none(filled: Registry) -> None:
    filled.record_episodes([episode(0, episode_return=math.nan, seed=None), episode(1, episode_return=-math.inf)])
    unknown, infinite = filled.list_episodes("study")
    assert math.isnan(unknown.episode_return)
    assert unknown.seed is None
    assert infinite.episode_return == -math.inf


def test_recording_an_episode_again_changes_only_what_differs(filled: Registry) -> None:
    filled.record_episodes([episode(0), episode(1)])
    first = filled.list_episodes("study")
    filled.record_episodes([episode(1, request_digest="other", episode_return=2.0), episode(0)])
    second = filled.list_episodes("study")
    assert second[0] == first[0]
    assert without_times(second[1]) == episode(1, request_digest="other", episode_return=2.0)


def test_recording_thousands_of_episodes_is_one_quick_call(filled: Registry) -> None:
    filled.record_episodes([episode(n) for n in range(5000)])
    filled.forget_episodes("study", "final", range(1, 5000))
    assert [record.number for record in filled.list_episodes("study")] == [0]


def test_episodes_need_their_checkpoint_and_are_recorded_all_or_none(filled: Registry) -> None:
    with pytest.raises(InvalidParameterError, match="Checkpoint 'best' of experiment 'study' is not registered"):
        filled.record_episodes([episode(0), episode(1, checkpoint="best")])
    assert filled.list_episodes("study") == []


def test_recording_no_episodes_does_nothing(filled: Registry) -> None:
    filled.record_episodes([])
    assert filled.list_episodes("study") == []


def test_forgetting_removes_what_belongs_to_it_and_may_be_repeated(filled: Registry) -> None:
    filled.ensure_checkpoint(CheckpointRecord(experiment="study", label="random"))
    filled.record_episodes([episode(n, checkpoint=label) for n in range(3) for label in ("final", "random")])
    for _ in range(2):
        filled.forget_episodes("study", "final", [0, 99])
        filled.forget_checkpoint("study", "random")
    assert [(record.checkpoint, record.number) for record in filled.list_episodes("study")] == [
        ("final", 1),
        ("final", 2),
    ]
    for _ in range(2):
        filled.forget_experiment("study")
    assert filled.find_experiment("study") is None
    assert filled.list_checkpoints("study") == []
    assert filled.list_episodes("study") == []
    assert [record.env_id for record in filled.list_environments()] == ["CartPole-v1"]


def test_what_was_registered_is_there_after_opening_again(new_url: str) -> None:
    with open_registry(new_url) as registry:
        registered = registry.ensure_environment(CART_POLE)
    with open_registry(new_url) as registry:
        assert registry.list_environments() == [registered]
