"""The spaces that an environment would have inside wrappers, found without making the environment."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from rlhfblender_core.wrappers.apply import wrap_environment
from rlhfblender_core.wrappers.specs import WrapperSpec


class _SpacesOnly(gym.Env[Any, Any]):
    """Has spaces and does nothing."""

    #: Wrappers that skip frames insist on it; whether the environment's own do fits shows when it is made.
    _frameskip = 1

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    def get_action_meanings(self) -> list[str]:
        """What Atari wrappers ask for; which actions there are changes no space."""
        return ["NOOP"]


def wrapped_spaces(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    wrappers: Sequence[WrapperSpec],
    *,
    trust: bool = False,
) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Observation and action space behind these wrappers.

    Raises:
        CheckpointNotUsableError: a wrapper isn't known, or doesn't go with these spaces.
    """
    env = wrap_environment(_SpacesOnly(observation_space, action_space), wrappers, trust=trust)
    return env.observation_space, env.action_space
