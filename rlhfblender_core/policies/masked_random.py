"""Random actions among those that the environment allows, and what is known about them. Never imports torch."""

import copy
import math
from typing import Any

import numpy as np
from gymnasium import spaces

from rlhfblender_core.errors import EnvironmentNotUsableError
from rlhfblender_core.policies.protocol import PolicyStep, UncertaintyKind, derived_seed
from rlhfblender_core.policies.random_policy import ACTION_STREAM
from rlhfblender_core.wrappers.masks import ActionMasks, Mask, mask_counts


class MaskedRandomPolicy:
    """Draws every action from those that the mask allows, each choice uniformly and for itself.

    Args:
        action_space: the environment's: Discrete, MultiDiscrete or MultiBinary; a copy's generator is used.
        action_masks: gives the mask at each step.
    """

    uncertainty_kind = UncertaintyKind.ENTROPY

    def __init__(self, action_space: spaces.Space[Any], action_masks: ActionMasks) -> None:
        self._space = copy.deepcopy(action_space)
        self._masks = action_masks
        counts = mask_counts(action_space)
        assert counts is not None  # noqa: S101 (where actions aren't discrete, there is no source of masks)
        self._ends = np.cumsum(counts)[:-1]

    def reset(self, seed: int) -> None:
        """Seeds the generator with a number that derives from ``seed`` alone."""
        self._space.seed(derived_seed(seed, ACTION_STREAM) % 2**32)

    def act(self, observation: Any) -> PolicyStep:  # noqa: ARG002 - part of the protocol
        """The next sample under the mask of this moment.

        Raises:
            EnvironmentNotUsableError: the mask allows no action.
        """
        choices: list[Mask] = np.split(self._masks(), self._ends)
        allowed = [np.flatnonzero(choice) for choice in choices]
        if not all(len(values) for values in allowed):
            raise EnvironmentNotUsableError(
                "The environment's mask allows no action at all, though the episode goes on"
            )
        chosen = [int(self._space.np_random.choice(values)) for values in allowed]
        entropy = sum(math.log(len(values)) for values in allowed)
        return PolicyStep(
            action=self._action(np.array(chosen)),
            probs=self._probabilities(choices),
            log_prob=-entropy,
            entropy=entropy,
            uncertainty=entropy,
        )

    def _action(self, chosen: "np.ndarray[Any, Any]") -> Any:
        space = self._space
        if isinstance(space, spaces.Discrete):
            return space.dtype.type(space.start + chosen[0])
        values = chosen.reshape(space.shape or ())
        return (values + space.start if isinstance(space, spaces.MultiDiscrete) else values).astype(space.dtype)

    def _probabilities(self, choices: list[Mask]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        probs = [(choice / choice.sum()).astype(np.float32) for choice in choices]
        if isinstance(self._space, spaces.MultiBinary):  # of each bit being 1
            probs = [pair[1:] for pair in probs]
        return np.concatenate(probs)
