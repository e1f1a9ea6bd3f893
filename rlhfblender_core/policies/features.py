"""What the last layer of a policy's network is given: the state as the policy sees it, for RLHF-Blender's projections.

Imports torch, as the policies from checkpoints do.
"""

from typing import Any

import torch

from rlhfblender_core.policies.checkpoint_policy import Floats, floats
from rlhfblender_core.policies.protocol import Policy, PolicyStep, UncertaintyKind

#: Where Stable-Baselines3's policies keep the network that acts, the most particular first: its last linear layer gives
#: actions, their distribution's parameters, or values of actions.
_ACTING = ("action_net", "actor.mu", "q_net", "quantile_net")


class PolicyWithFeatures:
    """A policy whose steps hold the input of its last layer.

    Args:
        policy: of a checkpoint.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._features: Floats | None = None
        layer = _last_layer(getattr(policy, "network", None))
        if layer is not None:
            layer.register_forward_pre_hook(self._keep)

    @property
    def uncertainty_kind(self) -> UncertaintyKind:
        """The policy's."""
        return self._policy.uncertainty_kind

    def reset(self, seed: int) -> None:
        """See :class:`~rlhfblender_core.policies.protocol.Policy`."""
        self._policy.reset(seed)

    def act(self, observation: Any) -> PolicyStep:
        """See :class:`~rlhfblender_core.policies.protocol.Policy`."""
        step = self._policy.act(observation)
        step.features = self._features
        return step

    def _keep(self, _layer: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        self._features = floats(given[0])


def _last_layer(network: torch.nn.Module | None) -> torch.nn.Linear | None:
    for path in _ACTING:
        acting: Any = network
        for name in path.split("."):
            acting = getattr(acting, name, None)
        if isinstance(acting, torch.nn.Module):
            layers = [layer for layer in acting.modules() if isinstance(layer, torch.nn.Linear)]
            return layers[-1] if layers else None
    return None
