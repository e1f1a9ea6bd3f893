"""Policies that choose the action of the highest Q-value: DQN and QR-DQN."""

from typing import Any

import numpy as np
import torch

from rlhfblender_core.policies.checkpoint_policy import CheckpointPolicy, Observation
from rlhfblender_core.policies.operators import features_of, operator_of
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

    def _start(self) -> None:
        network = self.network.q_net
        self._features, self._layers = features_of(network), operator_of(network.q_net)

    def _decide(self, observation: Observation) -> PolicyStep:
        return self._step(self._layers(self._features(observation))[0])

    def _step(self, q_values: torch.Tensor) -> PolicyStep:
        values = q_values.numpy()
        best = action = int(values.argmax())
        if self._exploration_rate:
            # Two draws per step, whatever comes of the first: a step's draws don't depend on those before.
            explores, other = self._random.random(), int(self._random.integers(len(values)))
            action = other if explores < self._exploration_rate else best
        return PolicyStep(
            action=self._environment_action(np.array(action)),
            q_values=values,
            value=values.item(best),
            uncertainty=self._uncertainty(q_values, action),
        )

    def _uncertainty(self, q_values: torch.Tensor, action: int) -> float:  # noqa: ARG002
        logs = torch.log_softmax(q_values, dim=0)
        return -(logs.exp() * logs).sum().item()


class QuantilePolicy(QPolicy):
    """QR-DQN: Q is the mean of the quantiles of the return."""

    uncertainty_kind = UncertaintyKind.QUANTILE_SPREAD

    def _start(self) -> None:
        network = self.network.quantile_net
        self._features, self._layers = features_of(network), operator_of(network.quantile_net)
        self._shape = (network.n_quantiles, -1)

    def _decide(self, observation: Observation) -> PolicyStep:
        self._quantiles = self._layers(self._features(observation)).view(self._shape)
        return self._step(self._quantiles.mean(dim=0))

    def _uncertainty(self, q_values: torch.Tensor, action: int) -> float:  # noqa: ARG002
        return float(np.std(self._quantiles.numpy()[:, action], dtype=np.float64))
