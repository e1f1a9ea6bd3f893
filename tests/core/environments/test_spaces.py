import json
import string
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlhfblender_core.environments import (
    check_supported,
    describe_space,
    flatten_observation,
    observation_columns,
    space_from_description,
    unflatten_observation,
)
from rlhfblender_core.errors import EnvironmentNotUsableError, InvalidParameterError

SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, max_side=3)


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64", "uint8", "int64", "int8", "float16"])))
    shape = draw(SHAPES)
    if dtype.kind == "f":
        elements = st.floats(-1000, 1000, width=dtype.itemsize * 8) | st.sampled_from([-np.inf, np.inf])
    else:
        # Gymnasium rounds the ends of int64, so stay a little inside.
        info = np.iinfo(dtype)
        inside = 2**60 if dtype == np.int64 else info.max
        elements = st.integers(max(info.min, -inside), inside)
    one, other = (draw(hnp.arrays(dtype, shape, elements=elements)) for _ in range(2))
    low, high = np.minimum(one, other), np.maximum(one, other)
    if dtype.kind == "f":
        low, high = np.where(low == np.inf, 0, low).astype(dtype), np.where(high == -np.inf, 0, high).astype(dtype)
    return spaces.Box(np.minimum(low, high), np.maximum(low, high), shape, dtype=dtype)


INTEGER_TYPES = st.sampled_from([np.int64, np.int32])
DISCRETE = st.builds(
    lambda n, start, dtype: spaces.Discrete(n, start=start, dtype=dtype),
    st.integers(1, 9),
    st.integers(-5, 5),
    INTEGER_TYPES,
)
MULTI_DISCRETE = hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=3), elements=st.integers(1, 5)).flatmap(
    lambda nvec: st.builds(
        lambda start, dtype: spaces.MultiDiscrete(nvec, dtype=dtype, start=start),
        hnp.arrays(np.int64, nvec.shape, elements=st.integers(-3, 3)),
        INTEGER_TYPES,
    )
)
MULTI_BINARY = (st.integers(1, 4) | st.lists(st.integers(1, 3), min_size=1, max_size=3)).map(spaces.MultiBinary)
TEXT = st.builds(
    lambda low, more, charset: spaces.Text(low + more, min_length=low, charset=charset),
    st.integers(0, 3),
    st.integers(1, 5),
    st.sampled_from([string.ascii_letters, "äöü→", "01"]),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.sampled_from(["a/b", "a.b", "..", "%2E", "a"])
SPACES: st.SearchStrategy[spaces.Space[Any]] = st.recursive(
    boxes() | DISCRETE | MULTI_DISCRETE | MULTI_BINARY | TEXT,
    lambda inner: (
        st.dictionaries(KEYS, inner, min_size=1, max_size=3).map(spaces.Dict)
        | st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple)
    ),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(SPACES)
def test_space_comes_back_from_its_description(space: spaces.Space[Any]) -> None:
    text = json.dumps(describe_space(space), allow_nan=False)
    again = space_from_description(json.loads(text))
    assert again == space
    assert json.dumps(describe_space(again)) == text


@settings(max_examples=150, deadline=None)
@given(SPACES, st.integers(0, 100))
def test_observation_comes_back_from_its_rows(space: spaces.Space[Any], seed: int) -> None:
    space.seed(seed)
    observation = space.sample()
    columns, rows = observation_columns(space), flatten_observation(space, observation)
    assert list(rows) == list(columns)
    assert all((rows[name].dtype, rows[name].shape) == tuple(column) for name, column in columns.items())
    assert not any("/" in name or "\\" in name for name in columns)
    again = unflatten_observation(space, rows)
    assert space.contains(again)
    assert _same(observation, again)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(np.array_equal(one, other))


def test_columns_are_named_by_the_place_in_the_space() -> None:
    space = spaces.Dict(
        {
            "position": spaces.Box(-1, 1, (2,), np.float32),
            "arm": spaces.Dict({"angle": spaces.Box(-1, 1, (), np.float64), "a/b.c": spaces.Discrete(3)}),
            "pair": spaces.Tuple([spaces.MultiBinary(4), spaces.Text(7)]),
        }
    )
    assert observation_columns(space) == {
        "obs.arm.a%2Fb%2Ec": (np.dtype("int64"), ()),
        "obs.arm.angle": (np.dtype("float64"), ()),
        "obs.pair.0": (np.dtype("int8"), (4,)),
        "obs.pair.1": (np.dtype("<U7"), ()),
        "obs.position": (np.dtype("float32"), (2,)),
    }
    assert observation_columns(spaces.Discrete(3)) == {"obs": (np.dtype("int64"), ())}


def test_the_keys_of_a_dict_keep_their_order_in_a_description() -> None:
    """A plain mapping would be sorted, and a row of all parts be another one."""
    inner = spaces.Dict([("y", spaces.Box(-1, 1, (2,))), ("b", spaces.Box(-1, 1, (3,)))])
    space = spaces.Dict([("z", spaces.Box(-1, 1, (1,))), ("inner", inner), ("a", spaces.Tuple([inner]))])
    again = space_from_description(json.loads(json.dumps(describe_space(space))))
    sample = space.sample()
    assert list(observation_columns(again)) == list(observation_columns(space))
    np.testing.assert_array_equal(spaces.flatten(again, sample), spaces.flatten(space, sample))


def test_box_observation_of_the_right_kind_is_not_copied() -> None:
    space = spaces.Box(0, 255, (2, 2, 3), np.uint8)
    observation = space.sample()
    assert flatten_observation(space, observation)["obs"] is observation


@pytest.mark.parametrize(
    ("space", "observation", "expected"),
    [
        (spaces.Box(0, 1, (2,), np.float32), [0, 1], np.float32([0, 1])),
        (spaces.Box(0, 1, (2,), np.float32), np.array([0.5, 1.0]), np.float32([0.5, 1])),
        (spaces.Box(0, 255, (2,), np.uint8), [0, 200], np.uint8([0, 200])),
        (spaces.Discrete(4), 3, np.int64(3)),
        (spaces.Discrete(4), True, np.int64(1)),
        (spaces.MultiBinary(2), np.array([True, False]), np.int8([1, 0])),
    ],
)
def test_numbers_of_another_type_are_converted_where_nothing_is_lost(
    space: spaces.Space[Any], observation: Any, expected: Any
) -> None:
    row = flatten_observation(space, observation)["obs"]
    assert row.dtype == expected.dtype
    np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize(
    ("space", "observation", "part"),
    [
        (spaces.Box(0, 1, (2,), np.float32), np.zeros(3, np.float32), r"shape \(2,\), it returned shape \(3,\)"),
        (spaces.Box(0, 9, (1,), np.uint8), np.array([0.5]), "dtype uint8, it returned dtype float64"),
        (spaces.Box(0, 9, (1,), np.uint8), [300], "dtype uint8, it returned dtype int64"),
        (spaces.Discrete(3), "left", "it returned dtype <U4"),
        (spaces.Dict({"a": spaces.Discrete(2)}), {"b": 1}, "the keys a, it returned b"),
        (spaces.Dict({"a": spaces.Discrete(2)}), 1, "the keys a, it returned int"),
        (spaces.Tuple([spaces.Discrete(2)]), (1, 1), "a tuple of 1"),
        (spaces.Dict({"t": spaces.Text(2)}), {"t": "abc"}, r"\(obs.t\): .* a text of up to 2 characters"),
    ],
)
def test_observations_that_do_not_fit_their_space_are_refused(
    space: spaces.Space[Any], observation: Any, part: str
) -> None:
    with pytest.raises(EnvironmentNotUsableError, match=part):
        flatten_observation(space, observation)


def test_description_of_a_picture_is_short() -> None:
    described = describe_space(spaces.Box(0, 255, (210, 160, 3), np.uint8))
    assert described == {"type": "Box", "shape": [210, 160, 3], "dtype": "uint8", "low": 0, "high": 255}


def test_infinite_bounds_are_texts() -> None:
    described = describe_space(spaces.Box(np.float32([-np.inf, 0]), np.float32([np.inf, np.inf])))
    assert described["low"] == ["-inf", 0.0]
    assert described["high"] == "inf"


@pytest.mark.parametrize("description", [{}, {"type": "Graph"}, {"type": "Box"}, {"type": "Discrete", "n": 0}])
def test_other_descriptions_are_refused(description: dict) -> None:
    with pytest.raises(InvalidParameterError, match="no description of a space"):
        space_from_description(description)


@pytest.mark.parametrize(
    ("observation", "action", "part"),
    [
        (spaces.Graph(spaces.Discrete(2), None), spaces.Discrete(2), "type Graph are not supported"),
        (spaces.Dict({"s": spaces.Sequence(spaces.Discrete(2))}), spaces.Discrete(2), "type Sequence are"),
        (spaces.Discrete(2), spaces.Dict({"a": spaces.Discrete(2)}), "Action spaces of type Dict"),
        (spaces.Discrete(2), spaces.Tuple([spaces.Discrete(2)]), "Action spaces of type Tuple"),
        (spaces.Discrete(2), spaces.Text(3), "Action spaces of type Text"),
        (None, spaces.Discrete(2), "observation_space is None"),
        (spaces.Discrete(2), 4, "action_space is 4"),
        (spaces.Dict({1: spaces.Discrete(2)}), spaces.Discrete(2), "the key 1"),
    ],
)
def test_unsupported_spaces_are_one_line(observation: object, action: object, part: str) -> None:
    with pytest.raises(EnvironmentNotUsableError, match=part):
        check_supported(observation, action)
