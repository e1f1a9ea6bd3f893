"""The gate between what a data root says of an environment and code that runs."""

import sys
from pathlib import Path

import gymnasium
import pytest

from rlhfblender_core.environments import EnvironmentSpec, Trust, make_environment
from rlhfblender_core.environments.parse import env_kwarg_text, parse_env_kwargs
from rlhfblender_core.errors import EnvironmentNotTrustedError, InvalidParameterError

COUNTING = "tests.support.environments_for_tests.counting:Counting"

#: What nobody has named and no installed package declares.
FOREIGN = [
    EnvironmentSpec("Foreign-v0", "os:mkdir", kwargs={"path": "/tmp/owned"}),
    EnvironmentSpec("Foreign-v0", "os:mkdir"),
    EnvironmentSpec("CartPole-v1", "os:mkdir"),
    EnvironmentSpec("CartPole-v1", "builtins:exec", kwargs={"source": "1"}),
    EnvironmentSpec("CartPole-v1", "gymnasium.envs.registration:load_env_creator", kwargs={"name": "os:system"}),
    EnvironmentSpec("CartPole-v1", "gymnasium:make", kwargs={"id": "antigravity:Foo-v0"}),
    EnvironmentSpec("CartPole-v1", "gymnasium.envs.classic_control.cartpole:logger.warn"),
    EnvironmentSpec("Foreign-v0", COUNTING),
    EnvironmentSpec("antigravity:Foo-v0"),
    EnvironmentSpec("antigravity:CartPole-v1"),
    EnvironmentSpec("os.path:CartPole-v1"),
    EnvironmentSpec("CartPole-v1", additional_packages=("antigravity",)),
    EnvironmentSpec("CartPole-v1", additional_packages=("ale_py", "antigravity")),
    EnvironmentSpec("CartPole-v1", additional_packages=("gymnasium.utils.play",)),
    EnvironmentSpec("CartPole-v1", kwargs={"sutton_barto_reward": "os:system"}),
    EnvironmentSpec("highway-v0", kwargs={"config": {"other_vehicles_type": "os.system"}}),
    EnvironmentSpec("Hopper-v5", kwargs={"xml_file": "/tmp/owned.xml"}),
    EnvironmentSpec("FrozenLake-v1", kwargs={"map_name": "8x8"}),
]

#: What Gymnasium or an installed package says itself.
DECLARED = [
    EnvironmentSpec("CartPole-v1"),
    EnvironmentSpec("CartPole-v1", spec_kwargs={"max_episode_steps": 7}),
    EnvironmentSpec("CartPole-v1", "gymnasium.envs.classic_control.cartpole:CartPoleEnv"),
    EnvironmentSpec("ALE/Pong-v5", additional_packages=("ale_py",)),
    EnvironmentSpec("FrozenLake-v1", kwargs={"map_name": "4x4"}),
    EnvironmentSpec("Unheard-of-v0"),
]


@pytest.fixture
def trust(tmp_path: Path) -> Trust:
    return Trust("here", tmp_path / "state" / "trusted")


@pytest.mark.parametrize("spec", FOREIGN, ids=str)
def test_gate_refuses_what_only_a_data_root_names_and_imports_nothing(spec: EnvironmentSpec, trust: Trust) -> None:
    with pytest.raises(EnvironmentNotTrustedError, match="--env "):
        trust.admit(spec)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("spec", DECLARED, ids=str)
def test_gate_admits_what_installed_packages_declare(spec: EnvironmentSpec, trust: Trust) -> None:
    trust.admit(spec)


@pytest.mark.parametrize("spec", FOREIGN, ids=str)
def test_gate_admits_what_the_user_names_and_remembers_it(spec: EnvironmentSpec, trust: Trust) -> None:
    trust.admit(spec, named=spec)
    trust.admit(spec)


def test_memory_is_of_one_registry_one_environment_and_the_very_values(trust: Trust) -> None:
    spec = EnvironmentSpec("Mine-v0", COUNTING, kwargs={"length": 3})
    trust.admit(spec, named=spec)
    others = [
        EnvironmentSpec("Other-v0", COUNTING, kwargs={"length": 3}),
        EnvironmentSpec("Mine-v0", "os:mkdir", kwargs={"length": 3}),
        EnvironmentSpec("Mine-v0", COUNTING, kwargs={"length": 4}),
        EnvironmentSpec("Mine-v0", COUNTING, kwargs={"length": 3, "fail_at": 2}),
        EnvironmentSpec("Mine-v0", COUNTING, ("antigravity",), {"length": 3}),
    ]
    for other in others:
        with pytest.raises(EnvironmentNotTrustedError):
            trust.admit(other)
    with pytest.raises(EnvironmentNotTrustedError):
        Trust("elsewhere", trust.memory).admit(spec)


def test_functions_of_a_declared_package_are_not_declared_with_it(
    trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declaring = tmp_path / "declaring-1.0.dist-info"
    declaring.mkdir()
    (declaring / "METADATA").write_text("Metadata-Version: 2.1\nName: declaring\nVersion: 1.0\n")
    (declaring / "entry_points.txt").write_text("[gymnasium.envs]\n__root__ = declaring.environments\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentNotTrustedError, match="--env "):
        trust.admit(EnvironmentSpec("Foreign-v0", "declaring.tools:clean_up"))


def test_naming_an_agent_does_not_admit_the_registrys_arguments(trust: Trust) -> None:
    with pytest.raises(EnvironmentNotTrustedError, match="--agent-kwargs"):
        trust.admit_agent("own:agent", {"command": "x"}, is_named=False)
    trust.admit_agent("own:agent", {"command": "x"}, is_named=True)
    trust.admit_agent("own:agent", {"command": "x"}, is_named=False)


def test_naming_one_part_admits_no_other(trust: Trust) -> None:
    spec = EnvironmentSpec("Mine-v0", COUNTING, kwargs={"length": 3})
    with pytest.raises(EnvironmentNotTrustedError):
        trust.admit(spec, named=EnvironmentSpec("Mine-v0", COUNTING))
    with pytest.raises(EnvironmentNotTrustedError):
        trust.admit(EnvironmentSpec("Mine-v0", COUNTING))  # what was refused is not remembered either


def test_refused_line_gives_flags_that_say_the_same(trust: Trust) -> None:
    kwargs = {"path": "/tmp/it's here", "n": 3, "text": "5", "deep": {"a": [1, None]}}
    with pytest.raises(EnvironmentNotTrustedError) as error:
        trust.admit(EnvironmentSpec("A-v0", "os:mkdir", ("one", "two"), kwargs))
    import shlex

    words = shlex.split(str(error.value).partition("`python flows/register.py ")[2].removesuffix("`."))
    assert words[:7] == ["--env", "A-v0", "--env-gym-entrypoint", "os:mkdir", "--additional-gym-packages", "one", "two"]
    assert parse_env_kwargs(words[8:]) == kwargs


def test_refused_line_has_no_escape_sequences_and_an_end(trust: Trust) -> None:
    with pytest.raises(EnvironmentNotTrustedError) as error:
        trust.admit(EnvironmentSpec("A-v0", "os:\x1b[2J\nx", kwargs={"path": "\x1b]0;" + "x" * 100_000}))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("value", ["a b", "5", "None", "'x'", "\t", "x\x00", 5, 0.5, [1, "a"], {"a": None}, True, None])
def test_text_of_a_keyword_argument_reads_back(value: object) -> None:
    assert parse_env_kwargs([env_kwarg_text("key", value)]) == {"key": value}  # type: ignore[arg-type]


def test_trusted_package_makes_its_environments_as_the_registry_says() -> None:
    trust = Trust(packages=frozenset({"tests.support"}))
    trust.admit(EnvironmentSpec("Mine-v0", COUNTING, ("tests.support.environments_for_tests",), {"length": 3}))
    for spec in (EnvironmentSpec("Mine-v0", "tests.supporter:X"), EnvironmentSpec("Mine-v0", "tests:X")):
        with pytest.raises(EnvironmentNotTrustedError):
            trust.admit(spec)
    Trust(packages=frozenset({"gymnasium"})).admit(EnvironmentSpec("CartPole-v1", kwargs={"sutton_barto_reward": True}))


def test_what_another_request_registered_in_this_process_is_not_declared(trust: Trust) -> None:
    spec = EnvironmentSpec("RegisteredHere-v0", COUNTING)
    make_environment(spec, render=False).close()
    assert spec.env_id in gymnasium.registry
    with pytest.raises(EnvironmentNotTrustedError):
        trust.admit(spec)


def test_memory_that_cannot_be_written_counts_for_this_command(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spec = EnvironmentSpec("Mine-v0", COUNTING)
    Trust("here", tmp_path / "file" / "trusted").admit(spec, named=spec)


def test_memory_is_readable_for_its_user_alone(trust: Trust) -> None:
    spec = EnvironmentSpec("Mine-v0", COUNTING)
    trust.admit(spec, named=spec)
    assert trust.memory is not None
    assert trust.memory.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("value", ["os.system", "a/b", "a:b", ["os.system"], {"x": {"y": "../z"}}])
def test_agents_settings_cannot_name_code_or_files(value: object, trust: Trust) -> None:
    spec = EnvironmentSpec("CartPole-v1")
    with pytest.raises(EnvironmentNotTrustedError):
        trust.admit_agent_kwargs(spec, {"given": value})  # type: ignore[dict-item]
    named = EnvironmentSpec("CartPole-v1", kwargs={"given": value})  # type: ignore[dict-item]
    trust.admit(named, named)
    trust.admit_agent_kwargs(named, {"given": value})  # type: ignore[dict-item]


def test_agents_settings_may_name_numbers_and_plain_words(trust: Trust) -> None:
    kwargs = {"size": 8, "kind": "dense", "range": [0.5, None], "nested": {"a": True}, "map_name": "8x8"}
    trust.admit_agent_kwargs(EnvironmentSpec("CartPole-v1"), kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [{"env_id": 5}, {"entry_point": ["os:mkdir"]}, {"additional_packages": (1,)}, {"kwargs": [1]}, {"kwargs": {1: 2}}],
)
def test_spec_of_other_types_than_texts_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterError):
        EnvironmentSpec(**{"env_id": "A-v0", **fields})  # type: ignore[arg-type]
