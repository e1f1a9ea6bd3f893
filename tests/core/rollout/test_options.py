"""Options of a rollout, as a request or a registry gives them."""

import pytest

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.rollout.options import RolloutOptions


@pytest.mark.parametrize(
    "held",
    [
        {"seed": "1"}, {"seed": True}, {"seed": [1]}, {"fps": "9"}, {"max_steps_per_episode": 2.5}, {"render": "no"},
        {"checkpoint_pattern": 5}, {"agent": 5}, {"agent_kwargs": []}, {"action_mask_method": 5}, {"vecnormalize": {}},
    ],
    ids=str,
)  # fmt: skip
def test_options_of_other_types_are_refused(held: dict[str, object]) -> None:
    with pytest.raises(InvalidParameterError, match=next(iter(held))):
        RolloutOptions.merged(held, {})


def test_whole_numbers_are_frames_per_second_too() -> None:
    assert RolloutOptions.merged({"fps": 30, "agent_kwargs": {"a": 1}}, {"seed": 3}).seed == 3
