"""Policies with an action distribution and a value function: PPO, A2C, TRPO, MaskablePPO, RecurrentPPO."""

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.torch_layers import MlpExtractor
from torch.distributions import Bernoulli, Categorical

from rlhfblender_core.policies.checkpoint_policy import CheckpointPolicy, Observation, floats
from rlhfblender_core.policies.distributions import (
    Floats,
    are_finite,
    choose,
    drawn_from_normal,
    log_probabilities,
    normal_log_prob,
)
from rlhfblender_core.policies.operators import features_of, operator_of, takes_rows
from rlhfblender_core.policies.protocol import PolicyStep, UncertaintyKind
from rlhfblender_core.wrappers.masks import ActionMasks

#: sb3-contrib's logit of an action that isn't allowed.
FORBIDDEN = np.float32(-1e8)


class ActorCriticPolicy(CheckpointPolicy):
    """PPO, A2C and TRPO."""

    uncertainty_kind = UncertaintyKind.ENTROPY

    def _start(self) -> None:
        network = self.network
        layers = network.mlp_extractor
        is_known = type(layers) is MlpExtractor
        self._actor = operator_of(layers.policy_net) if is_known else layers.forward_actor
        self._critic = operator_of(layers.value_net) if is_known else layers.forward_critic
        self._head, self._value = operator_of(network.action_net), operator_of(network.value_net)
        self._features = features_of(network) if takes_rows(network) else network.extract_features
        self._is_categorical = type(network.action_dist) is CategoricalDistribution
        self._is_gaussian = type(network.action_dist) is DiagGaussianDistribution
        if self._is_gaussian:
            # The same in all states.
            self._std = network.log_std.exp()
            self._log_std = self._std.log().numpy()
            self._entropy = float(network.action_dist.proba_distribution(self._std[None], network.log_std).entropy())
        if getattr(network, "use_sde", False):
            # Exploration noise is a function of the state, drawn once per episode.
            network.reset_noise()

    def _decide(self, observation: Observation) -> PolicyStep:
        latent_actor, latent_critic = self._latents(observation)
        step = self._act(observation, latent_actor)
        step.value = self._value(latent_critic).item()
        return step

    def _act(self, observation: Observation, latent: torch.Tensor) -> PolicyStep:
        """The step without the critic's value."""
        network = self.network
        if self._is_categorical or self._is_gaussian:
            output = self._head(latent).numpy()[0]
            if are_finite(output):
                return self._choice(output) if self._is_categorical else self._gaussian(output)
        if getattr(network, "use_sde", False) and hasattr(network, "sde_features_extractor"):
            noise = network.sde_features_extractor(network.extract_features(observation))
            mean = network.action_net(latent)
            return self._step(network.action_dist.proba_distribution(mean, network.log_std, noise))
        # Stable-Baselines3 gives actions, or the distribution: both in one pass only by this method.
        return self._step(network._get_action_dist_from_latent(latent))  # noqa: SLF001

    def _latents(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        actor, critic = self._both_features(observation)
        return self._actor(actor), self._critic(critic)

    def _both_features(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """What the layers of the actor and of the critic get, which may be the same."""
        features = self._features(observation)
        return features if isinstance(features, tuple) else (features, features)

    def _choice(self, logits: Floats) -> PolicyStep:
        step = choose(logits, deterministic=self._deterministic)
        space: Any = self._action_space
        step.action = space.dtype.type(step.action + space.start)
        return step

    def _gaussian(self, mean: Floats) -> PolicyStep:
        std = self._std.numpy()
        action = mean if self._deterministic else drawn_from_normal(mean, std)
        shape = self._action_space.shape or ()
        return PolicyStep(
            action=self._environment_action(action),
            action_mean=mean.reshape(shape),
            action_std=std.reshape(shape),
            log_prob=normal_log_prob(action, mean, std, self._log_std),
            entropy=self._entropy,
            uncertainty=self._entropy,
        )

    def _step(self, distribution: Any) -> PolicyStep:
        """What one of Stable-Baselines3's distributions says."""
        action = distribution.get_actions(deterministic=self._deterministic)
        entropy = distribution.entropy()
        known = PolicyStep(
            action=self._environment_action(action.numpy()),
            log_prob=float(distribution.log_prob(action)),
            # Squashed gSDE has no entropy in closed form.
            entropy=None if entropy is None else float(entropy),
        )
        known.uncertainty = math.nan if known.entropy is None else known.entropy
        _describe(distribution, known, self._action_space)
        return known


class MaskableActorCriticPolicy(ActorCriticPolicy):
    """MaskablePPO: actions that aren't allowed have probability 0, if the environment says which are."""

    def __init__(self, *args: Any, action_masks: ActionMasks | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._action_masks = action_masks

    def _start(self) -> None:
        from sb3_contrib.common.maskable.distributions import MaskableCategoricalDistribution

        super()._start()
        self._is_categorical = type(self.network.action_dist) is MaskableCategoricalDistribution

    def _act(self, observation: Observation, latent: torch.Tensor) -> PolicyStep:  # noqa: ARG002 (of the family)
        masks = None if self._action_masks is None else self._action_masks()
        if self._is_categorical:
            logits = self._head(latent).numpy()[0]
            if are_finite(logits):
                # sb3-contrib makes a distribution first, and that of the allowed actions of it.
                logits = log_probabilities(logits)
                return self._choice(logits if masks is None else np.where(masks, logits, FORBIDDEN))
        distribution = self.network._get_action_dist_from_latent(latent)  # noqa: SLF001
        if masks is not None:
            distribution.apply_masking(masks)
        return self._step(distribution)


class RecurrentActorCriticPolicy(ActorCriticPolicy):
    """RecurrentPPO: the LSTM's state is carried through an episode."""

    def _forget(self) -> None:
        super()._forget()
        zeros = torch.zeros(self.network.lstm_hidden_state_shape)
        self._actor_state = (zeros, zeros)
        self._critic_state = (zeros, zeros)

    def _latents(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        network = self.network
        actor, critic = self._both_features(observation)
        actor, self._actor_state = _through(network.lstm_actor, actor, self._actor_state)
        if network.lstm_critic is not None:
            critic, self._critic_state = _through(network.lstm_critic, critic, self._critic_state)
        elif network.shared_lstm:
            critic = actor
        else:
            critic = network.critic(critic)
        return self._actor(actor), self._critic(critic)


State = tuple[torch.Tensor, torch.Tensor]


def _through(lstm: torch.nn.LSTM, features: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
    """One step of one sequence."""
    output, after = lstm(features.unsqueeze(0), state)
    return output.squeeze(0), after


def _describe(distribution: Any, known: PolicyStep, space: spaces.Space[Any]) -> None:
    """Fills in what the distribution says: probabilities, or mean and standard deviation."""
    # sb3-contrib's maskable ones keep a list under another name.
    held = getattr(distribution, "distributions", None) or distribution.distribution
    parts = held if isinstance(held, list) else [held]
    if not all(isinstance(part, (Categorical, Bernoulli)) for part in parts):
        known.action_mean = floats(held.mean).reshape(space.shape or ())
        known.action_std = floats(held.stddev).reshape(space.shape or ())
        return
    probs = [floats(part.probs) for part in parts]
    if isinstance(space, spaces.MultiBinary) and isinstance(parts[0], Categorical):
        # Maskable bits are choices between 0 and 1.
        probs = [pair[1:] for pair in probs]
    known.probs = np.concatenate(probs)
