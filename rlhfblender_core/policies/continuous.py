"""Policies for continuous actions with Q-functions (SAC, TQC, CrossQ, TD3, DDPG), and ARS, which has none."""

import math
from typing import Any

import torch
from stable_baselines3.sac.policies import LOG_STD_MAX, LOG_STD_MIN

from rlhfblender_core.policies.checkpoint_policy import CheckpointPolicy, Observation, floats
from rlhfblender_core.policies.distributions import are_finite, drawn_from_normal, squashed_log_prob
from rlhfblender_core.policies.operators import features_of, operator_of
from rlhfblender_core.policies.protocol import PolicyStep, UncertaintyKind


class DeterministicActorPolicy(CheckpointPolicy):
    """TD3 and DDPG: one action per state; the critics are asked about it before it is unscaled."""

    uncertainty_kind = UncertaintyKind.TWIN_CRITIC_GAP

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.network.critic.q_networks) == 1:
            self.uncertainty_kind = UncertaintyKind.NONE

    def _start(self) -> None:
        actor, critic = self.network.actor, self.network.critic
        self._features, self._critic_features = features_of(actor), features_of(critic)
        self._mean = operator_of(actor.mu)
        self._critics = [operator_of(q_network) for q_network in critic.q_networks]

    def _decide(self, observation: Observation) -> PolicyStep:
        return self._judged(observation, self._mean(self._features(observation)))

    def _judged(self, observation: Observation, action: torch.Tensor) -> PolicyStep:
        """The step for an action in [-1, 1], with the critics' opinion of it."""
        asked = torch.cat([self._critic_features(observation), action], dim=1)
        q_values = self._q_values([critic(asked) for critic in self._critics]).numpy()
        lowest = q_values.min()
        return PolicyStep(
            action=self._environment_action(action.numpy()),
            q_values=q_values,
            value=float(lowest),
            uncertainty=math.nan if len(q_values) == 1 else float(q_values.max() - lowest),
        )

    def _q_values(self, said: list[torch.Tensor]) -> torch.Tensor:
        """The value of each critic, (critics,), of what they say, (1, k) each."""
        return torch.cat(said).reshape(-1)


class SquashedGaussianPolicy(DeterministicActorPolicy):
    """SAC and CrossQ: a Gaussian, squashed by tanh. Its entropy has no closed form."""

    def _start(self) -> None:
        super()._start()
        actor = self.network.actor
        if actor.use_sde:
            actor.reset_noise()
        else:
            self._latent, self._log_std = operator_of(actor.latent_pi), operator_of(actor.log_std)

    def _decide(self, observation: Observation) -> PolicyStep:
        if not self.network.actor.use_sde:
            latent = self._latent(self._features(observation))
            mean, log_std = self._mean(latent), self._log_std(latent).clamp(LOG_STD_MIN, LOG_STD_MAX)
            if are_finite(mean.numpy()[0]):
                return self._squashed(observation, mean, log_std.exp())
        return self._said(observation)

    def _squashed(self, observation: Observation, means: torch.Tensor, stds: torch.Tensor) -> PolicyStep:
        mean, std = means.numpy()[0], stds.numpy()[0]
        drawn = means if self._deterministic else torch.from_numpy(drawn_from_normal(mean, std)[None])
        action = torch.tanh(drawn)
        step = self._judged(observation, action)
        step.log_prob = squashed_log_prob(action.numpy()[0], mean, std)
        shape = self._action_space.shape or ()
        step.action_mean, step.action_std = mean.reshape(shape), std.reshape(shape)
        return step

    def _said(self, observation: Observation) -> PolicyStep:
        """The step by Stable-Baselines3's own distribution."""
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

    def _q_values(self, said: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(said, dim=1).mean(dim=2).reshape(-1)


class BareActionPolicy(CheckpointPolicy):
    """ARS: an action and nothing else."""

    def _start(self) -> None:
        """Nothing to find."""

    def _decide(self, observation: Observation) -> PolicyStep:
        return PolicyStep(action=self._environment_action(self.network(observation).numpy()))
