import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhfblender_core.environments import parse_env_kwargs
from rlhfblender_core.errors import InvalidParameterError


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("max_episode_steps:1000", {"max_episode_steps": 1000}),
        ("difficulty:'hard'", {"difficulty": "hard"}),
        ("difficulty:hard", {"difficulty": "hard"}),
        ("url:file:///maps/1", {"url": "file:///maps/1"}),
        ("map_name:4x4", {"map_name": "4x4"}),
        ("span:(1, 2)", {"span": [1, 2]}),
        ("config:{'lanes': 3, 'goal': (0.5, None)}", {"config": {"lanes": 3, "goal": [0.5, None]}}),
        ("flag:True", {"flag": True}),
        ("flag:true", {"flag": "true"}),
        ("nothing:None", {"nothing": None}),
        ("gravity:-9.81", {"gravity": -9.81}),
        ("empty:", {"empty": ""}),
        ("pattern:'\\d'", {"pattern": "\\d"}),  # Python's parser warns about it
        ("odd:1is", {"odd": "1is"}),
        ("unhashable:{[]: 1}", {"unhashable": "{[]: 1}"}),
        ("deep:" + "(" * 500, {"deep": "(" * 500}),
    ],
)
def test_values_are_literals_where_they_parse_and_text_elsewhere(item: str, expected: dict) -> None:
    assert parse_env_kwargs([item]) == expected


@pytest.mark.parametrize(
    ("items", "part"),
    [
        (["size"], "expects key:value, got 'size'"),
        ([""], "expects key:value, got ''"),
        ([":5"], "expects a name before the colon"),
        (["my size:5"], "expects a name before the colon"),
        (["size:5", "size:6"], "has 'size' twice"),
        (["render_mode:human"], "can't set render_mode"),
        (["size:{1, 2}"], "'size' can't be stored as JSON"),
        (["size:1e999"], "'size' can't be stored as JSON"),
        (["size:{1: 2}"], "'size' can't be stored as JSON"),
    ],
)
def test_wrong_items_are_one_line(items: list[str], part: str) -> None:
    with pytest.raises(InvalidParameterError, match=part) as caught:
        parse_env_kwargs(items)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_parses_to_something_stable_or_is_refused(text: str) -> None:
    try:
        parsed = parse_env_kwargs([f"key:{text}"])
    except InvalidParameterError:
        return
    assert json.loads(json.dumps(parsed)) == parsed
    assert parse_env_kwargs([f"key:{parsed['key']!r}"]) == parsed
