"""Environments that allow other actions in every step, and count those that they didn't allow."""

from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

ACTIONS = {
    "discrete": spaces.Discrete(5),
    "shifted": spaces.Discrete(5, start=-2),
    "multi_discrete": spaces.MultiDiscrete([3, 4]),
    "multi_binary": spaces.MultiBinary(3),
}
_COUNTS = {"discrete": (5,), "shifted": (5,), "multi_discrete": (3, 4), "multi_binary": (2, 2, 2)}


class Choosing(gymnasium.Env):
    """Two values of each choice are allowed (one of a bit), others in each step; ``valid_action_mask`` says which."""

    metadata: ClassVar = {"render_modes": []}
    observation_space = spaces.Box(0, 100, (1,), np.float32)

    def __init__(self, actions="discrete", length=12):
        self.action_space, self.counts, self.length = ACTIONS[actions], _COUNTS[actions], length
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        chosen = np.atleast_1d(action) - getattr(self.action_space, "start", 0)
        allowed = all(flags[k] for flags, k in zip(self._choices(), chosen, strict=True))
        self.count += 1
        return np.full(1, self.count, np.float32), float(allowed), self.count == self.length, False, {}

    def valid_action_mask(self):
        return np.concatenate(self._choices()).astype(np.int8)

    def _choices(self):
        choices = [np.zeros(n, bool) for n in self.counts]
        for place, flags in enumerate(choices):
            flags[(self.count + place) % len(flags)] = True
            if len(flags) > 2:
                flags[(self.count + 2 * place + 1) % len(flags)] = True
        return choices


class Masking(Choosing):
    """Says it by the name that sb3-contrib knows."""

    def action_masks(self):
        return self.valid_action_mask().astype(bool)


class Picturing(Choosing):
    """Its masks are of pixels."""

    valid_action_mask = None

    def segmentation_mask(self):
        return np.zeros((8, 8), bool)


class Stuck(Masking):
    """Allows nothing from step 3 on."""

    def action_masks(self):
        return super().action_masks() & (self.count < 3)


class MaskingEach(Choosing):
    """A mask for each choice."""

    def action_masks(self):
        return self._choices()


class AskingForTheState(Choosing):
    """Says it to those who tell its state."""

    def action_masks(self, state):
        return self.valid_action_mask()


class MaskingTooFew(Masking):
    def action_masks(self):
        return super().action_masks()[1:]


class FailingToMask(Masking):
    def action_masks(self):
        return self.board
