"""A small network's layers, called without the modules around them.

For one observation, torch's kernels take a fraction of a forward pass: what costs is the Python between them. Here
the same kernels get the same numbers, so that all bits are the same; what isn't known is called as it is.

Imports torch, as the policies from checkpoints do.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

Operator = Callable[[torch.Tensor], torch.Tensor]

#: Activations that Stable-Baselines3's policies have; they follow a layer whose output nobody else holds.
_ACTIVATIONS: dict[type[nn.Module], Operator] = {nn.Tanh: torch.tanh_, nn.ReLU: torch.relu_}


def features_of(network: Any) -> Callable[[Any], Any]:
    """What the layers of a network of Stable-Baselines3's get of an observation in a batch of one.

    Args:
        network: with an observation space and an extractor of features: a policy, an actor, a critic.
    """
    if takes_rows(network):
        space = network.observation_space
        if space.dtype == np.float32 and len(space.shape) == 1:
            return lambda observation: observation
        return lambda observation: observation.float().flatten(1)
    return lambda observation: network.extract_features(observation, network.features_extractor)


def takes_rows(network: Any) -> bool:
    """Whether the network's layers get the observations as they are, one row each: no pictures, no Dicts."""
    space = network.observation_space
    is_plain = type(network.features_extractor) is FlattenExtractor and isinstance(space, spaces.Box)
    return is_plain and not is_image_space(space)


def operator_of(network: nn.Module) -> Operator:
    """What the network computes of a batch of rows, (n, d): a layer, or layers one after another."""
    if type(network) is not nn.Sequential or _is_hooked(network):
        return _layer(network)
    layers = list(network)
    operators = [_layer(layer) for layer in layers]
    for place, (before, layer) in enumerate(itertools.pairwise(layers), start=1):
        if type(layer) in _ACTIVATIONS and type(before) is nn.Linear and not (_is_hooked(before) or _is_hooked(layer)):
            operators[place] = _ACTIVATIONS[type(layer)]

    def apply(rows: torch.Tensor) -> torch.Tensor:
        for operator in operators:
            rows = operator(rows)
        return rows

    return apply


def _layer(layer: nn.Module) -> Operator:
    if type(layer) is not nn.Linear or layer.bias is None or _is_hooked(layer):
        return layer
    # What a linear layer does with rows, two dispatches later.
    bias, weight = layer.bias, layer.weight.t()
    return lambda rows: torch.addmm(bias, rows, weight)


def _is_hooked(module: nn.Module) -> bool:
    return bool(module._forward_pre_hooks or module._forward_hooks)  # noqa: SLF001 (torch tells nowhere else)
