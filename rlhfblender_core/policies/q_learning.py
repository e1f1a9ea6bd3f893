"""Policies that choose the action of the highest Q-value: DQN and QR-DQN."""

from typing import Any

import numpy as np
import torch

from rlhfblender_core.policies.checkpoint_policy import CheckpointPolicy, Observation, floats
from rlhfblender_core.policies.protocol import PolicyStep, UncertaintyKind


class QPolicy(CheckpointPolicy):
    """DQN.

    Args:
        exploration_rate: share of random actions when not deterministic: the model's own when it was saved.
    """

    uncertainty_kind = UncertaintyKind.Q_SOFTMAX_ENTROPY

    def __init__(self, *args: Any, exploration_rate: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exploration_rate = 0.0 if self._deterministic else exploration_rate

    def _decide(self, observation: Observation) -> PolicyStep:
        return self._step(self.network.q_net(observation)[0])

    def _step(self, q_values: torch.Tensor) -> PolicyStep:
        best = int(q_values.argmax())
        action = best
        # Two draws per step, whatever comes of the first: a step's draws don't depend on those before.
        explores, other = self._random.random(), int(self._random.integers(len(q_values)))
        if explores < self._exploration_rate:
            action = other
        return PolicyStep(
            action=self._environment_action(torch.as_tensor(action)),
            q_values=floats(q_values),
            value=float(q_values[best]),
            uncertainty=self._uncertainty(q_values, action),
        )

    def _uncertainty(self, q_values: torch.Tensor, action: int) -> float:  # noqa: ARG002
        logs = torch.log_softmax(q_values, dim=0)
        return float(-(logs.exp() * logs).sum())


class QuantilePolicy(QPolicy):
    """QR-DQN: Q is the mean of the quantiles of the return."""

    uncertainty_kind = UncertaintyKind.QUANTILE_SPREAD

    def _decide(self, observation: Observation) -> PolicyStep:
        self._quantiles = self.network.quantile_net(observation)[0]
        return self._step(self._quantiles.mean(dim=0))

    def _uncertainty(self, q_values: torch.Tensor, action: int) -> float:  # noqa: ARG002
        return float(np.std(self._quantiles[:, action].numpy(), dtype=np.float64))
