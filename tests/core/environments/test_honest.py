"""Honest environments that were refused, and those that can never work, each with its way out."""

from pathlib import Path

import gymnasium
import pytest

from rlhfblender_core.environments import EnvironmentSpec, describe_environment, make_environment
from rlhfblender_core.errors import EnvironmentNotUsableError
from rlhfblender_core.rollout.trial import try_out
from rlhfblender_core.tuples import tuple_forms


def spec_of(name: str, **kwargs: object) -> EnvironmentSpec:
    return EnvironmentSpec(f"{name}-v0", f"outside_envs:{name}", kwargs=kwargs)


def refusal(name: str) -> str:
    def both() -> None:
        describe_environment(spec_of(name), render=True, try_out=True)
        try_out(spec_of(name), render=True)

    with pytest.raises(EnvironmentNotUsableError) as caught:
        both()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_lists_that_were_tuples_are_tuples_again_at_every_depth(outside: Path) -> None:
    spec = spec_of("WantsTuplesDeepDown", config={"observation": {"shape": (2, 3)}}, sizes=[5])
    spec = EnvironmentSpec.from_json(spec.to_json())
    for _ in range(2):
        env = make_environment(spec, render=False)
        assert env.unwrapped.shapes == ((2, 3, 1), [5, 1])


def test_highway_env_takes_shapes_as_json_has_them() -> None:
    pytest.importorskip("highway_env")
    observation = {"type": "GrayscaleObservation", "observation_shape": [64, 32], "stack_size": 2}
    observation["weights"] = [0.2989, 0.5870, 0.1140]
    env = make_environment(
        EnvironmentSpec("highway-fast-v0", kwargs={"config": {"observation": observation}}), render=False
    )
    assert env.observation_space.shape == (2, 64, 32)
    env.close()


def test_forms_of_keyword_arguments_begin_with_what_was_given() -> None:
    given = {"a": [1, [2]], "b": {"c": 3}}
    forms = tuple_forms(given)
    assert forms[0] == given
    assert forms[0]["a"] is not given["a"]
    assert forms[1] == {"a": (1, (2,)), "b": {"c": 3}}
    assert len(forms) == 4
    assert tuple_forms({"a": 1}) == [{"a": 1}]
    assert [form["a"] for form in tuple_forms({"a": [[0]] * 9})] == [
        [[0]] * 9,
        ((0,),) * 9,
        ([0],) * 9,
        [(0,)] * 9,
    ]


def test_a_constructor_that_insists_on_a_render_mode_gets_one_without_rendering(outside: Path) -> None:
    assert make_environment(spec_of("InsistsOnRendering"), render=False).render_mode == "rgb_array"


@pytest.mark.parametrize(("name", "fps"), [("DeclaresNothing", 30), ("DeclaresAsGymDid", 12)])
def test_an_environment_that_returns_frames_is_rendered_whatever_it_declares(
    name: str, fps: float, outside: Path
) -> None:
    assert describe_environment(spec_of(name), render=True, try_out=True).fps == fps


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("RendersLists", ("rgb_array_list only", "--no-render")),
        ("FourValues", ("step() returns four values", "migration_guide")),
        ("ThreeValues", ("3 values", "Correct its step()")),
        ("VectorRewards", ("2 numbers", "mo_gymnasium.wrappers.LinearReward", "--env-gym-entrypoint")),
        ("NoReward", ("the reward None, which is no number",)),
        ("SwappedInfo", ("truncated {", "neither True nor False", "truncated, info)")),
        ("EndsForEachAgent", ("terminated array([False, False])",)),
        ("NoInfo", ("no info", "migration_guide")),
        ("NoSeed", ("no seed", "migration_guide")),
        ("NoOptions", ("takes no options", "migration_guide")),
        ("NoStep", ("has no step()",)),
        ("AssertsBarely", ("AssertionError: assert self.length > 99 (outside_envs.py, line",)),
        ("SequenceObservations", ("Sequence", "TransformObservation")),
        ("OneOfActions", ("OneOf", "TransformAction")),
    ],
)
def test_what_can_never_work_is_one_line_with_the_way_out(name: str, parts: tuple[str, ...], outside: Path) -> None:
    message = refusal(name)
    assert [part for part in parts if part not in message] == [], message


def test_wrappers_that_messages_name_exist() -> None:
    assert hasattr(gymnasium.wrappers, "TransformAction")
    assert hasattr(gymnasium.wrappers, "TransformObservation")
