"""The contract between a rollout and whatever chooses its actions. No policy is implemented here."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class UncertaintyKind(StrEnum):
    """What a policy's ``uncertainty`` measures; recorded in every manifest."""

    #: The algorithm has no such notion; every value is NaN.
    NONE = "none"
    #: Entropy of the action distribution, in nats (differential entropy for continuous actions).
    ENTROPY = "entropy"
    #: Entropy of softmax(Q), in nats.
    Q_SOFTMAX_ENTROPY = "q_softmax_entropy"
    #: Standard deviation over the quantiles of the return of the action taken.
    QUANTILE_SPREAD = "quantile_spread"
    #: An agent of the user's own gives an uncertainty, and doesn't say of what kind.
    OWN = "own"
    #: Largest minus smallest of the critics' values of the action taken: ``|Q1 - Q2|`` with two.
    TWIN_CRITIC_GAP = "twin_critic_gap"


@dataclass(slots=True)
class PolicyStep:
    """One decision and all that is known about it; None where the algorithm has no such thing.

    Attributes:
        action: an element of the environment's action space, with its dtype; given to ``env.step`` as it is.
        probs: float32, probabilities of the actions: (n,) for Discrete, (sum(nvec),) concatenated for MultiDiscrete,
            (n,) of each bit being 1 for MultiBinary.
        action_mean: float32, the action space's shape: mean of the Gaussian the action is drawn from, before it is
            clipped to the space's bounds, or squashed by tanh and rescaled (SAC, TQC, CrossQ, squashed gSDE). The mean
            itself for the uniform distribution of the random policy.
        action_std: float32, the action space's shape: standard deviation belonging to ``action_mean``.
        log_prob: log-probability (density for continuous actions) of the action before clipping, in nats.
        entropy: of the action distribution, in nats.
        value: V(s) where there is a critic of states; max Q(s, a) for Q-learners; the smallest of the critics'
            Q(s, action) for SAC, TQC, CrossQ, TD3 and DDPG.
        q_values: float32: (n,) of all actions for DQN and QR-DQN, (critics,) of the action taken for actor-critics
            with Q-functions.
        uncertainty: see :class:`UncertaintyKind`; NaN where the kind is none.
        features: float32 (d,): what the last layer of the network that acts was given; None where they weren't asked
            for.
    """

    action: Any
    probs: npt.NDArray[np.float32] | None = None
    action_mean: npt.NDArray[np.float32] | None = None
    action_std: npt.NDArray[np.float32] | None = None
    log_prob: float | None = None
    entropy: float | None = None
    value: float | None = None
    q_values: npt.NDArray[np.float32] | None = None
    uncertainty: float = float("nan")
    features: npt.NDArray[np.float32] | None = None


class Policy(Protocol):
    """What a rollout needs of an agent. One policy serves one episode at a time."""

    @property
    def uncertainty_kind(self) -> UncertaintyKind:
        """What ``PolicyStep.uncertainty`` measures, for all steps alike."""
        ...

    def reset(self, seed: int) -> None:
        """Starts an episode: all that follows depends on ``seed`` and the observations alone.

        Seeds the policy's own sampling and clears recurrent state and stacked frames, so that the same seed gives
        the same bytes whatever ran before in this process.
        """
        ...

    def act(self, observation: Any) -> PolicyStep:
        """The decision for one observation of the (wrapped) environment. Doesn't change the observation."""
        ...


def derived_seed(seed: int, stream: int) -> int:
    """A 63-bit seed for one of the generators of an episode.

    ``env.reset(seed=seed)`` feeds the same number to the same kind of bit generator: without a stream of its own the
    policy would draw the very numbers the environment draws.
    """
    return int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1))
