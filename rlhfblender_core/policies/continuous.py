"""Policies for continuous actions with Q-functions (SAC, TQC, CrossQ, TD3, DDPG), and ARS, which has none."""

from typing import Any

import torch

from rlhfblender_core.policies.checkpoint_policy import CheckpointPolicy, Observation, floats
from rlhfblender_core.policies.protocol import PolicyStep, UncertaintyKind


class DeterministicActorPolicy(CheckpointPolicy):
    """TD3 and DDPG: one action per state; the critics are asked about it before it is unscaled."""

    uncertainty_kind = UncertaintyKind.TWIN_CRITIC_GAP

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.network.critic.q_networks) == 1:
            self.uncertainty_kind = UncertaintyKind.NONE

    def _decide(self, observation: Observation) -> PolicyStep:
        return self._judged(observation, self.network.actor(observation))

    def _judged(self, observation: Observation, action: torch.Tensor) -> PolicyStep:
        """The step for an action in [-1, 1], with the critics' opinion of it."""
        q_values = self._q_values(observation, action)
        alone = len(q_values) == 1
        return PolicyStep(
            action=self._environment_action(action),
            q_values=floats(q_values),
            value=float(q_values.min()),
            uncertainty=float("nan") if alone else float(q_values.max() - q_values.min()),
        )

    def _q_values(self, observation: Observation, action: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.network.critic(observation, action)).reshape(-1)


class SquashedGaussianPolicy(DeterministicActorPolicy):
    """SAC and CrossQ: a Gaussian, squashed by tanh. Its entropy has no closed form."""

    def _start(self) -> None:
        if self.network.actor.use_sde:
            self.network.actor.reset_noise()

    def _decide(self, observation: Observation) -> PolicyStep:
        actor = self.network.actor
        mean, log_std, latent = actor.get_action_dist_params(observation)
        if (
            actor.use_sde and getattr(actor, "sde_features_extractor", None) is not None
        ):  # of a checkpoint from before 1.5
            features = actor.extract_features(observation, actor.features_extractor)
            latent = {"latent_sde": actor.sde_features_extractor(features)}
        distribution = actor.action_dist.proba_distribution(mean, log_std, **latent)
        action = distribution.get_actions(deterministic=self._deterministic)
        step = self._judged(observation, action)
        step.log_prob = float(distribution.log_prob(action))
        shape = self._action_space.shape or ()
        step.action_mean = floats(distribution.distribution.mean).reshape(shape)
        step.action_std = floats(distribution.distribution.stddev).reshape(shape)
        return step


class QuantileCriticPolicy(SquashedGaussianPolicy):
    """TQC: each critic gives quantiles of the return; its value is their mean."""

    def _q_values(self, observation: Observation, action: torch.Tensor) -> torch.Tensor:
        quantiles: torch.Tensor = self.network.critic(observation, action)
        return quantiles.mean(dim=2).reshape(-1)


class BareActionPolicy(CheckpointPolicy):
    """ARS: an action and nothing else."""

    def _decide(self, observation: Observation) -> PolicyStep:
        return PolicyStep(action=self._environment_action(self.network(observation)))
