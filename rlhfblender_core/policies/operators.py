"""A small network's operators, called without the modules and distributions around them.

For one observation, torch's kernels take a fraction of a forward pass: what costs is the Python between them. Here
the same kernels get the same numbers, so that all bits are the same; what isn't known is called as it is.

Imports torch, as the policies from checkpoints do.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

#: Stands for the logarithm of 0, as in ``Categorical.entropy``.
_LOWEST = torch.finfo(torch.float32).min

Operator = Callable[[torch.Tensor], torch.Tensor]

#: Activations that Stable-Baselines3's policies have; they follow a layer whose output nobody else holds.
_ACTIVATIONS: dict[type[nn.Module], Operator] = {nn.Tanh: torch.tanh_, nn.ReLU: torch.relu_}


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


class Choice(NamedTuple):
    """An action among several, and the distribution it comes from.

    Attributes:
        action: from 0 on.
        log_prob: of it, in nats.
        entropy: of the distribution, in nats.
        probs: float32 (1, n).
    """

    action: int
    log_prob: float
    entropy: float
    probs: torch.Tensor


def choose(logits: torch.Tensor, *, deterministic: bool) -> Choice:
    """What ``torch.distributions.Categorical`` says of one row of logits, (1, n), by the operators that it uses.

    Where logits are no distribution the log-probability is NaN: ask ``Categorical``, which raises or doesn't. The
    generator is drawn from as by ``torch.multinomial``, which divides by exponential numbers and takes the largest
    (ATen/native/Distributions.cpp); what it checks before costs half of its time.
    """
    highest = logits.amax(-1, keepdim=True)
    logs = logits - (logits - highest).exp_().sum(-1, keepdim=True).log_().add_(highest)
    probs = logs.softmax(-1)
    drawn = probs if deterministic else probs / torch.empty_like(probs).exponential_()
    action = int(drawn.argmax().item())
    log_prob = logs.tolist()[0][action]
    return Choice(action, log_prob, -logs.clamp_(min=_LOWEST).mul_(probs).sum().item(), probs)
