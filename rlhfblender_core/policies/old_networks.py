"""What Stable-Baselines3 built otherwise before 1.8: layers that actor and critic share, features for gSDE's noise.

Which of it a checkpoint has is seen by the names of its weights. Importing this module imports torch.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn

_SHARED = "mlp_extractor.shared_net."


class SharedMlpExtractor(nn.Module):
    """``MlpExtractor`` until 1.7: some layers first, then those of the actor and of the critic on top of them.

    Args:
        feature_dim: numbers that come in.
        net_arch: sizes of the shared layers, then maybe ``{"pi": sizes, "vf": sizes}``; what follows it is ignored.
        activation_fn: after each layer.
    """

    def __init__(self, feature_dim: int, net_arch: Sequence[Any], activation_fn: type[nn.Module]) -> None:
        super().__init__()
        split = next((place for place, part in enumerate(net_arch) if isinstance(part, dict)), len(net_arch))
        sizes = list(net_arch[:split])
        own = net_arch[split] if split < len(net_arch) else {}
        shared_dim = _last(feature_dim, sizes)
        self.shared_net = _layers(feature_dim, sizes, activation_fn)
        self.policy_net = _layers(shared_dim, own.get("pi", []), activation_fn)
        self.value_net = _layers(shared_dim, own.get("vf", []), activation_fn)
        self.latent_dim_pi = _last(shared_dim, own.get("pi", []))
        self.latent_dim_vf = _last(shared_dim, own.get("vf", []))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the heads of the actor and of the critic get."""
        shared = self.shared_net(features)
        return self.policy_net(shared), self.value_net(shared)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """The first of them alone."""
        latent: torch.Tensor = self.policy_net(self.shared_net(features))
        return latent

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """The second of them alone."""
        latent: torch.Tensor = self.value_net(self.shared_net(features))
        return latent


def has_shared_layers(weights: Collection[str]) -> bool:
    """Whether a policy with these weights has layers that actor and critic share."""
    return any(name.startswith(_SHARED) for name in weights)


def with_shared_layers(policy_class: Any) -> Any:
    """The policy's class with layers that actor and critic share, as it was until 1.7."""

    class OldPolicy(policy_class):  # type: ignore[misc]  # its class is known only here
        def _build_mlp_extractor(self) -> None:
            # Recurrent policies have an LSTM in between.
            features: Any = getattr(self, "lstm_output_dim", self.features_dim)
            self.mlp_extractor = SharedMlpExtractor(features, self.net_arch, self.activation_fn)

    OldPolicy.__name__ = policy_class.__name__
    return OldPolicy


def add_gsde_features(network: Any, net_arch: Sequence[int]) -> None:
    """Gives the policy the network that gSDE's noise was a function of, until 1.4, where ``sde_net_arch`` says so.

    Actors of off-policy algorithms have it themselves; its weights and those of the noise are loaded afterwards.

    Args:
        network: the policy, without its weights.
        net_arch: sizes of the layers; none for the features themselves.
    """
    owner = getattr(network, "actor", network)
    features = owner.features_dim
    owner.sde_features_extractor = _layers(features, net_arch, owner.activation_fn)
    if owner.use_sde:
        noise = owner.action_dist
        noise.latent_sde_dim = _last(features, net_arch)
        columns = noise.action_dim if noise.full_std else 1
        owner.log_std = nn.Parameter(torch.zeros(noise.latent_sde_dim, columns))


def lacks_hidden_layers(weights: Collection[str]) -> bool:
    """Whether an off-policy actor goes from features to actions at once, the default for pictures until 1.5."""
    if any(name.startswith("actor.log_std") for name in weights):  # SAC and those made like it
        return not any(name.startswith("actor.latent_pi.") for name in weights)
    return "actor.mu.0.weight" in weights and "actor.mu.2.weight" not in weights  # TD3, DDPG: a list of layers


def _layers(dim: int, sizes: Sequence[int], activation_fn: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(*create_mlp(dim, -1, list(sizes), activation_fn))


def _last(dim: int, sizes: Sequence[int]) -> int:
    return sizes[-1] if sizes else dim
