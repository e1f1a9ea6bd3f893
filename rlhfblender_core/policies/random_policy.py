"""Uniformly random actions, and what is known about them. Never imports torch."""

import copy
import math
from collections.abc import Sequence
from functools import singledispatch
from typing import Any

import numpy as np
from gymnasium import spaces

from rlhfblender_core.policies.protocol import PolicyStep, UncertaintyKind, derived_seed

#: Stream of :func:`derived_seed` for the action space.
ACTION_STREAM = 1
#: Equal numbers that would be stored at every step: of more actions they are left out.
_MOST_PROBABILITIES = 1 << 16


class RandomPolicy:
    """Draws every action from the action space, whatever is observed.

    Args:
        action_space: the environment's; a copy is sampled, the environment's own stays untouched.
    """

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self._space = copy.deepcopy(action_space)
        self._known = _distribution(self._space)

    @property
    def uncertainty_kind(self) -> UncertaintyKind:
        """Entropy, or none where the uniform distribution over the space doesn't exist."""
        return UncertaintyKind.NONE if self._known.entropy is None else UncertaintyKind.ENTROPY

    def reset(self, seed: int) -> None:
        """Seeds the action space's copy with a number that derives from ``seed`` alone."""
        # MultiDiscrete and Dict spaces accept seeds below 2**32 only.
        self._space.seed(derived_seed(seed, ACTION_STREAM) % 2**32)

    def act(self, observation: Any) -> PolicyStep:  # noqa: ARG002 - part of the protocol
        """The next sample; the arrays of different steps are never shared."""
        known = self._known
        entropy = known.entropy
        return PolicyStep(
            action=self._space.sample(),
            probs=None if known.probs is None else known.probs.copy(),
            action_mean=None if known.action_mean is None else known.action_mean.copy(),
            action_std=None if known.action_std is None else known.action_std.copy(),
            # Uniform: the log-density is the same everywhere.
            log_prob=None if entropy is None else -entropy,
            entropy=entropy,
            uncertainty=math.nan if entropy is None else entropy,
        )


@singledispatch
def _distribution(space: spaces.Space[Any]) -> PolicyStep:  # noqa: ARG001 - dispatched on
    """What is known in advance about samples of the space; nothing for spaces without a uniform distribution."""
    return PolicyStep(action=None)


@_distribution.register
def _(space: spaces.Discrete) -> PolicyStep:
    return _uniform([int(space.n)])


@_distribution.register
def _(space: spaces.MultiDiscrete) -> PolicyStep:
    return _uniform([int(n) for n in space.nvec.ravel()])


@_distribution.register
def _(space: spaces.MultiBinary) -> PolicyStep:
    n = int(np.prod(space.shape))
    return PolicyStep(action=None, probs=np.full(n, 0.5, np.float32), entropy=n * math.log(2))


def _uniform(counts: Sequence[int]) -> PolicyStep:
    """What is known of choices among so many values each."""
    is_storable = sum(counts) <= _MOST_PROBABILITIES
    probs = np.concatenate([np.full(n, 1 / n, np.float32) for n in counts]) if is_storable else None
    return PolicyStep(action=None, probs=probs, entropy=sum(math.log(n) for n in counts))


@_distribution.register
def _(space: spaces.Box) -> PolicyStep:
    if not space.is_bounded():
        # Gymnasium draws from exponentials and normals there: no uniform distribution, so nothing is claimed.
        return PolicyStep(action=None)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    integers = np.issubdtype(space.dtype, np.integer)
    # Integer boxes hold high - low + 1 values; the variance of n equally likely integers is (n² - 1) / 12.
    with np.errstate(divide="ignore", over="ignore"):  # wide ones may be beyond what floats hold
        width = high - low + 1 if integers else high - low
        variance = (width**2 - (1 if integers else 0)) / 12
        entropy = float(np.log(width).sum())
        mean, deviation = ((low + high) / 2).astype(np.float32), np.sqrt(variance).astype(np.float32)
    # A side of width 0 has no density.
    entropy_or_none = entropy if math.isfinite(entropy) else None
    return PolicyStep(action=None, action_mean=mean, action_std=deviation, entropy=entropy_or_none)
