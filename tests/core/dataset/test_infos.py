import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfblender_core.dataset.infos import info_to_json


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({}, {}),
        ({"a": 1, "b": [1.5, None, True]}, {"a": 1, "b": [1.5, None, True]}),
        ({"x": np.arange(3), "y": np.float32(0.5), "z": np.bool_(True)}, {"x": [0, 1, 2], "y": 0.5, "z": True}),
        ({1: "one", np.int64(2): "two", (3, 4): "tuple"}, {"1": "one", "2": "two", "(3, 4)": "tuple"}),
        ({"s": {"b", "a"}, "t": b"\xff", "c": 1j}, {"s": ["a", "b"], "t": "\ufffd", "c": "1j"}),
        (
            {"l": np.longdouble(1.5), "d": np.datetime64("2026-01-01")},
            {"l": "np.longdouble('1.5')", "d": "datetime.date(2026, 1, 1)"},
        ),
        ({"o": np.array([None, "x"], object)}, {"o": ["None", "'x'"]}),
        ({"u": "\ud800"}, {"u": "\ud800"}),
        (None, {}),
        ([1, {"a": 2}], {"info": [1, {"a": 2}]}),
    ],
)
def test_infos_are_json_with_nothing_lost(info: Any, expected: dict[str, Any]) -> None:
    text = info_to_json(info)
    assert "\n" not in text
    assert json.loads(text) == expected


def test_what_json_cant_hold_is_named_without_addresses_which_differ_from_run_to_run() -> None:
    class Thing:
        pass

    texts = {info_to_json({"thing": Thing(), "lambda": lambda: None, "keys": {Thing(): 1}}) for _ in range(2)}
    assert len(texts) == 1
    assert "Thing object" in texts.pop()


def test_an_info_that_contains_itself_is_cut_off() -> None:
    info: dict[str, Any] = {"a": 1}
    info["self"] = info
    assert json.loads(info_to_json(info))["a"] == 1


def test_what_is_nested_too_deeply_or_cant_be_shown_is_named_by_its_type() -> None:
    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"deeper": deep}
    info = json.loads(info_to_json({"mute": Mute(), "deep": deep, "n": 1}))
    assert (info["mute"].split(".")[-1], info["n"]) == ("Mute>", 1)
    assert info["deep"]["deeper"]["deeper"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("-inf")])
def test_numbers_that_arent_finite_come_back(value: float) -> None:
    assert repr(json.loads(info_to_json({"v": value}))["v"]) == repr(float(value))


@given(
    st.dictionaries(
        st.text() | st.integers(), st.recursive(st.none() | st.floats() | st.binary(), st.lists, max_leaves=5)
    )
)
def test_every_info_becomes_one_line_of_json(info: dict[Any, Any]) -> None:
    text = info_to_json(info)
    assert isinstance(json.loads(text), dict)
    assert text.isascii()
