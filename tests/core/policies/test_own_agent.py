"""A user's agent as a policy: what it says of a decision is its own, in each step as in the first."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.policies.own_agent import OwnPolicy
from rlhfblender_core.policies.protocol import PolicyStep


class Reusing:
    """Gives the same arrays in each step, changed; another size in the third."""

    def __init__(self) -> None:
        self.probs = np.zeros(2)
        self.steps = 0

    def act(self, _observation: Any) -> PolicyStep:
        self.steps += 1
        self.probs += 0.25
        return PolicyStep(0, probs=self.probs if self.steps < 3 else np.zeros(3), value=1)


def test_arrays_that_an_agent_changes_and_what_it_says_anew() -> None:
    policy = OwnPolicy(Reusing, spaces.Discrete(2), "package:Reusing", deterministic=True)
    policy.reset(0)
    first, second = policy.act(None), policy.act(None)
    assert first.probs is not None
    assert second.probs is not None
    assert (first.probs.tolist(), second.probs.tolist()) == ([0.25, 0.25], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"first step"):
        policy.act(None)
    policy.reset(0)
    assert policy.act(None).value == 1
