import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfblender_core.environments import EnvironmentSpec, split_env_kwargs
from rlhfblender_core.errors import InvalidParameterError

FULL = EnvironmentSpec(
    "ALE/Pong-v5",
    "my.module:Env",
    ("b", "a"),
    {"size": 3, "area": [1, [2.5, None]], "config": {"z": 1, "a": "x"}},
    {"max_episode_steps": 5, "disable_env_checker": False},
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_spec_comes_back_from_json_and_pickle() -> None:
    assert EnvironmentSpec.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL
    assert pickle.loads(pickle.dumps(FULL)) == FULL
    assert hash(FULL) == hash(EnvironmentSpec.from_json(FULL.to_json()))


@given(st.dictionaries(st.text().filter(lambda name: name not in ("max_episode_steps",)), JSON_VALUES, max_size=4))
def test_any_json_kwargs_come_back(kwargs: dict) -> None:
    try:
        spec = EnvironmentSpec("A-v0", kwargs=kwargs)
    except InvalidParameterError:
        return
    assert EnvironmentSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_equal_specs_have_equal_texts_whatever_the_order_of_their_kwargs() -> None:
    one = EnvironmentSpec("A-v0", kwargs={"a": 1, "b": {"x": (1, 2), "y": 2}})
    other = EnvironmentSpec("A-v0", kwargs={"b": {"y": 2, "x": [1, 2]}, "a": 1})
    assert one == other
    assert json.dumps(one.to_json()) == json.dumps(other.to_json())


def test_spec_does_not_share_the_dictionary_it_was_given() -> None:
    given_kwargs = {"config": {"lanes": 3}}
    spec = EnvironmentSpec("A-v0", kwargs=given_kwargs)
    given_kwargs["config"]["lanes"] = 4
    assert spec.kwargs == {"config": {"lanes": 3}}


def test_split_sends_the_registrations_kwargs_to_the_spec() -> None:
    constructor, registration = split_env_kwargs({"size": 3, "max_episode_steps": 5, "reward_threshold": 1.5})
    assert constructor == {"size": 3}
    assert registration == {"max_episode_steps": 5, "reward_threshold": 1.5}


@pytest.mark.parametrize(
    ("spec_kwargs", "part"),
    [
        ({"max_episode_steps": 0}, "max_episode_steps must be a positive whole number"),
        ({"max_episode_steps": True}, "max_episode_steps must be"),
        ({"max_episode_steps": "many"}, 'not "many"'),
        ({"reward_threshold": "high"}, "reward_threshold must be a number"),
        ({"order_enforce": 1}, "order_enforce must be True or False"),
        ({"size": 1}, "'size' is no argument of a registration"),
    ],
)
def test_wrong_registration_kwargs_are_refused(spec_kwargs: dict, part: str) -> None:
    with pytest.raises(InvalidParameterError, match=part):
        EnvironmentSpec("A-v0", spec_kwargs=spec_kwargs)


@pytest.mark.parametrize("value", [{1, 2}, b"x", float("inf"), float("nan"), {1: 2}, 1j, [object()]])
def test_values_that_json_cannot_hold_are_refused(value: object) -> None:
    with pytest.raises(InvalidParameterError, match="'size' can't be stored as JSON"):
        EnvironmentSpec("A-v0", kwargs={"size": value})  # type: ignore[dict-item]


def test_registration_kwargs_among_the_constructors_are_refused() -> None:
    with pytest.raises(InvalidParameterError, match="max_episode_steps belongs to"):
        EnvironmentSpec("A-v0", kwargs={"max_episode_steps": 5})


@pytest.mark.parametrize("document", [{}, {"env_id": "A-v0"}, {**FULL.to_json(), "kwargs": 3}])
def test_other_documents_are_refused(document: dict) -> None:
    with pytest.raises(InvalidParameterError, match="no environment specification"):
        EnvironmentSpec.from_json(document)
