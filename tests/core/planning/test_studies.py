"""Keyword arguments belong to experiments: studies of one environment, side by side in one data root."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rlhfblender_core.errors import EnvironmentNotTrustedError, RegistryConflictError
from rlhfblender_core.planning.request import request_from_flags
from rlhfblender_core.planning.work import plan_work
from rlhfblender_core.registry import ExperimentRecord, open_registry
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support.generating import generate, locations_of, request
from tests.support.verifying import database, problems

SHORT = {"max_episode_steps": 3}
#: Random episodes of an installed environment, under a default name.
CART_POLE = {"env": "CartPole-v1", "random": True, "no_render": True, "num_episodes": 1}


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    (tmp_path / "data").mkdir()
    return open_data_root(str(tmp_path / "data"))


def ask(root: DataRoot, **flags: object) -> int:
    return generate(root, database(root), request_from_flags(flags))


def experiments(root: DataRoot) -> dict[str, ExperimentRecord]:
    with open_registry(database(root)) as registry:
        return {record.name: record for record in registry.list_experiments()}


def lengths(root: DataRoot, experiment: str) -> list[int]:
    with open_registry(database(root)) as registry:
        return [episode.episode_length for episode in registry.list_episodes(experiment)]


@pytest.mark.parametrize("first", ["a", "b"])
def test_two_studies_of_an_environment_have_keyword_arguments_of_their_own(root: DataRoot, first: str) -> None:
    given = {"a": {}, "b": {"env_kwargs": SHORT}}
    for name in sorted(given, reverse=first == "b"):
        assert ask(root, **{**CART_POLE, "exp": name, "num_episodes": 2}, **given[name]) == 2
    for name in given:  # continued by its name alone, and finished requests are seen as finished
        assert ask(root, exp=name, random=True, num_episodes=2) == 0
        assert ask(root, exp=name, random=True, num_episodes=3) == 1
    assert lengths(root, "b") == [3, 3, 3]
    assert min(lengths(root, "a")) > 3
    assert {name: record.env_kwargs for name, record in experiments(root).items()} == {"a": {}, "b": SHORT}
    assert problems(root, database(root)) == []


def test_keyword_arguments_of_an_experiment_are_changed_by_overwriting_it_alone(root: DataRoot) -> None:
    ask(root, **CART_POLE, exp="a", env_kwargs=SHORT)
    with pytest.raises(RegistryConflictError, match=r"max_episode_steps = 3, but 5 was asked for\..*--overwrite"):
        ask(root, exp="a", random=True, env_kwargs={"max_episode_steps": 5})
    assert ask(root, exp="a", random=True, num_episodes=1, env_kwargs={"max_episode_steps": 5}, overwrite=True) == 1
    assert lengths(root, "a") == [5]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_without_a_name_each_set_of_keyword_arguments_is_an_experiment(root: DataRoot, order: tuple[int, ...]) -> None:
    sets = [{}, SHORT, {"max_episode_steps": 4, "reward_threshold": 2}]
    for number in order:
        assert ask(root, **CART_POLE, env_kwargs=sets[number]) == 1
        assert ask(root, **CART_POLE, env_kwargs=sets[number]) == 0
    plain = "CartPole-v1_random_experiment"
    named = (plain, f"{plain}_max_episode_steps-3", f"{plain}_max_episode_steps-4_reward_threshold-2")
    assert {name: record.env_kwargs for name, record in experiments(root).items()} == dict(
        zip(named, sets, strict=True)
    )


def test_an_experiment_that_was_named_before_keeps_its_name(root: DataRoot) -> None:
    plain = "CartPole-v1_random_experiment"
    ask(root, **CART_POLE, exp=plain, env_kwargs=SHORT)
    assert ask(root, **CART_POLE, env_kwargs=SHORT) == 0
    assert ask(root, **{**CART_POLE, "num_episodes": 2}) == 1, "as registered"
    assert lengths(root, plain) == [3, 3]


def test_spaces_and_labels_are_those_of_the_experiment(root: DataRoot) -> None:
    labels = ("a", "b", "c")
    url = database(root)
    generate(root, url, request(1, exp="discrete", action_names=labels, no_render=True))
    generate(root, url, request(1, exp="box", env_kwargs={"actions": "box"}, no_render=True))
    spaces = {name: record.action_space["type"] for name, record in experiments(root).items()}
    assert spaces == {"discrete": "Discrete", "box": "Box"}
    with open_registry(url) as registry:
        assert registry.list_environments()[0].action_space["type"] == "Discrete"
        assert registry.list_environments()[0].action_names == labels
    plan = plan_work(request_from_flags({"exp": "box", "random": True}), locations_of(root, url)).plan
    assert plan.settings[0].action_names is None


def test_a_project_may_have_an_experiment_of_another_ones_name(root: DataRoot) -> None:
    ask(root, **CART_POLE, exp="Mine")
    other = {**CART_POLE, "env": "Acrobot-v1", "exp": "Mine", "project": "Two", "env_kwargs": SHORT}
    assert ask(root, **other) == 1
    assert ask(root, **other) == 0
    assert ask(root, exp="Mine", project="Two", random=True, num_episodes=2) == 1
    made = {name: (record.project, record.env_id) for name, record in experiments(root).items()}
    assert made == {"Mine": ("RLHF-Blender", "CartPole-v1"), "Two_Mine": ("Two", "Acrobot-v1")}
    with pytest.raises(RegistryConflictError, match='project = "RLHF-Blender", but "Three"'):
        ask(root, **CART_POLE, exp="Mine", project="Three")


def test_a_model_folder_that_was_moved_is_found_again(root: DataRoot, trained_cartpole: Path, tmp_path: Path) -> None:
    asked = {"env": "CartPole-v1", "exp": "study", "checkpoints": [128], "num_episodes": 1, "no_render": True}
    first, second = tmp_path / "one", tmp_path / "two"
    shutil.copytree(trained_cartpole, first)
    assert ask(root, **asked, model_path=str(first)) == 1
    first.rename(second)
    assert ask(root, **asked, model_path=str(second)) == 0
    assert experiments(root)["study"].model_path == str(second)
    (second / "rl_model_128_steps.zip").write_bytes((second / "rl_model_256_steps.zip").read_bytes())
    with pytest.raises(RegistryConflictError, match="another checkpoint file"):
        ask(root, **asked, model_path=str(second))


def test_keyword_arguments_that_only_a_registry_names_are_not_acted_on(root: DataRoot) -> None:
    url = database(root)
    ask(root, **CART_POLE, exp="a")
    with open_registry(url) as registry:
        known = registry.list_experiments()[0]
        registry.ensure_experiment(replace(known, name="b", env_kwargs={"sutton_barto_reward": 1}))
    with pytest.raises(EnvironmentNotTrustedError, match="--env-kwargs sutton_barto_reward:1"):
        ask(root, exp="b", random=True)
