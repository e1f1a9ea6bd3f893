"""Policies with an action distribution and a value function: PPO, A2C, TRPO, MaskablePPO, RecurrentPPO."""

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch.distributions import Bernoulli, Categorical

from rlhfblender_core.policies.checkpoint_policy import CheckpointPolicy, Observation, floats
from rlhfblender_core.policies.operators import choose, operator_of
from rlhfblender_core.policies.protocol import PolicyStep, UncertaintyKind
from rlhfblender_core.wrappers.masks import ActionMasks


class ActorCriticPolicy(CheckpointPolicy):
    """PPO, A2C and TRPO."""

    uncertainty_kind = UncertaintyKind.ENTROPY

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        network = self.network
        layers = network.mlp_extractor
        is_known = type(layers) is MlpExtractor
        self._actor = operator_of(layers.policy_net) if is_known else layers.forward_actor
        self._critic = operator_of(layers.value_net) if is_known else layers.forward_critic
        self._value = operator_of(network.value_net)
        self._is_categorical = type(network.action_dist) is CategoricalDistribution
        self._is_flat = _takes_rows(network)

    def _start(self) -> None:
        # Anew for each episode: whoever wants to see what the head is given has hooked it meanwhile.
        self._head = operator_of(self.network.action_net)
        if getattr(self.network, "use_sde", False):
            # Exploration noise is a function of the state, drawn once per episode.
            self.network.reset_noise()

    def _decide(self, observation: Observation) -> PolicyStep:
        network = self.network
        latent_actor, latent_critic = self._latents(observation)
        if self._is_categorical:
            return self._choose(self._head(latent_actor), self._value(latent_critic))
        if getattr(network, "use_sde", False) and hasattr(network, "sde_features_extractor"):
            noise = network.sde_features_extractor(network.extract_features(observation))
            mean = network.action_net(latent_actor)
            distribution = network.action_dist.proba_distribution(mean, network.log_std, noise)
        else:
            # Stable-Baselines3 gives actions, or the distribution: both in one pass only by this method.
            distribution = network._get_action_dist_from_latent(latent_actor)  # noqa: SLF001
        return self._step(distribution, self._value(latent_critic))

    def _latents(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        actor, critic = self._features(observation)
        return self._actor(actor), self._critic(critic)

    def _features(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        """What the layers of the actor and of the critic get, which may be the same."""
        if self._is_flat:
            rows = observation.float().flatten(1)
            return rows, rows
        features = self.network.extract_features(observation)
        return features if isinstance(features, tuple) else (features, features)

    def _choose(self, logits: torch.Tensor, value: torch.Tensor) -> PolicyStep:
        chosen = choose(logits, deterministic=self._deterministic)
        if math.isnan(chosen.log_prob):
            return self._step(self.network.action_dist.proba_distribution(action_logits=logits), value)
        space: Any = self._action_space
        return PolicyStep(
            action=space.dtype.type(chosen.action + space.start),
            probs=chosen.probs.numpy()[0],
            log_prob=chosen.log_prob,
            entropy=chosen.entropy,
            value=value.item(),
            uncertainty=chosen.entropy,
        )

    def _step(self, distribution: Any, values: torch.Tensor) -> PolicyStep:
        action = distribution.get_actions(deterministic=self._deterministic)
        entropy = distribution.entropy()
        known = PolicyStep(
            action=self._environment_action(action),
            log_prob=float(distribution.log_prob(action)),
            # Squashed gSDE has no entropy in closed form.
            entropy=None if entropy is None else float(entropy),
            value=float(values),
        )
        known.uncertainty = float("nan") if known.entropy is None else known.entropy
        _describe(distribution, known, self._action_space)
        return known


class MaskableActorCriticPolicy(ActorCriticPolicy):
    """MaskablePPO: actions that aren't allowed have probability 0, if the environment says which are."""

    def __init__(self, *args: Any, action_masks: ActionMasks | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._action_masks = action_masks

    def _decide(self, observation: Observation) -> PolicyStep:
        latent_actor, latent_critic = self._latents(observation)
        distribution = self.network._get_action_dist_from_latent(latent_actor)  # noqa: SLF001
        if self._action_masks is not None:
            distribution.apply_masking(self._action_masks())
        return self._step(distribution, self.network.value_net(latent_critic))


class RecurrentActorCriticPolicy(ActorCriticPolicy):
    """RecurrentPPO: the LSTM's state is carried through an episode."""

    def _start(self) -> None:
        super()._start()
        zeros = torch.zeros(self.network.lstm_hidden_state_shape)
        self._actor_state = (zeros, zeros)
        self._critic_state = (zeros, zeros)

    def _latents(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor]:
        network = self.network
        actor, critic = self._features(observation)
        actor, self._actor_state = _through(network.lstm_actor, actor, self._actor_state)
        if network.lstm_critic is not None:
            critic, self._critic_state = _through(network.lstm_critic, critic, self._critic_state)
        elif network.shared_lstm:
            critic = actor
        else:
            critic = network.critic(critic)
        return self._actor(actor), self._critic(critic)


def _takes_rows(network: Any) -> bool:
    """Whether the network's layers get the observations as they are, one row each: no pictures, no Dicts."""
    space = network.observation_space
    is_plain = type(network.features_extractor) is FlattenExtractor and isinstance(space, spaces.Box)
    return is_plain and not is_image_space(space)


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
