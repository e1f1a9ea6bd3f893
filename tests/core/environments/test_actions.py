from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.environments import action_dimensions, check_action_names
from rlhfblender_core.errors import InvalidParameterError


@pytest.mark.parametrize(
    ("space", "dimensions"), [(spaces.Discrete(4), 1), (spaces.Box(-1, 1, (3,)), 3), (spaces.Discrete(9, start=3), 1)]
)
def test_action_dimensions_are_one_for_discrete_and_the_length_of_a_flat_box(
    space: spaces.Space[Any], dimensions: int
) -> None:
    assert action_dimensions(space) == dimensions


@pytest.mark.parametrize(
    "space",
    [spaces.Box(-1, 1, (2, 2)), spaces.Box(-1, 1, ()), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)],
)
def test_other_spaces_have_no_dimensions_and_take_no_names(space: spaces.Space[Any]) -> None:
    with pytest.raises(InvalidParameterError, match="only Discrete and flat Box"):
        action_dimensions(space)
    with pytest.raises(InvalidParameterError, match="only Discrete and flat Box"):
        check_action_names(space, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("space", "names"),
    [(spaces.Discrete(2), ["left", "right"]), (spaces.Box(-1, 1, (3,), np.float32), ("x", "y", "z"))],
)
def test_fitting_names_pass(space: spaces.Space[Any], names: list[str]) -> None:
    check_action_names(space, names)


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["up"], r"Discrete\(2\) has 2 actions, so it takes 2 names; got 1"),
        (["up", "down", "left"], "got 3"),
        (["up", " "], "can't be empty"),
        (["up", "up"], "given twice: up"),
    ],
)
def test_other_names_are_refused(names: list[str], part: str) -> None:
    with pytest.raises(InvalidParameterError, match=part):
        check_action_names(spaces.Discrete(2), names)
