"""What torch's distributions say of one decision, without their Python, bit for bit.

Exponentials, logarithms, sums and random numbers come from torch's kernels, as there. What has one right result in
IEEE 754 (differences, products, quotients, the largest) NumPy computes, for a third of what a call of torch costs.

Where a network's output isn't finite there is no answer: ask torch's distributions, which raise or don't. Imports
torch, as the policies from checkpoints do.
"""

import math

import numpy as np
import numpy.typing as npt
import torch

from rlhfblender_core.policies.protocol import PolicyStep

Floats = npt.NDArray[np.float32]

#: Whose magnitudes add up to more has differences that may not be finite.
_WIDEST = 1e38
#: The logarithm of the root of 2π, as in ``Normal.log_prob``.
_LOG_ROOT = math.log(math.sqrt(2 * math.pi))
#: Stable-Baselines3's, of the inverse of tanh and of the logarithm of its slope.
_EDGE, _EPSILON = 1.0 - torch.finfo(torch.float32).eps, 1e-6


def are_finite(row: Floats) -> bool:
    """Whether there is something to be computed of the numbers, (n,)."""
    return bool(sum(map(abs, row.tolist())) < _WIDEST)  # of NaN, too, that isn't so


def total(row: Floats) -> float:
    """The sum of the numbers, (n,), in the order in which torch adds them."""
    return torch.from_numpy(row).sum().item()


def log_probabilities(logits: Floats) -> Floats:
    """Logits, (n,), less the logarithm of the sum of their exponentials, as ``Categorical`` has them."""
    highest = logits.item(logits.argmax())  # max() takes six times as long
    exponentials = torch.from_numpy(logits - highest).exp_()
    return logits - np.float32(exponentials.sum().log_().item() + highest)


def choose(logits: Floats, *, deterministic: bool) -> PolicyStep:
    """What ``torch.distributions.Categorical`` says of finite logits, (n,); the action counts from 0.

    The generator is drawn from as by ``torch.multinomial``, which divides by exponential numbers and takes the largest
    (ATen/native/Distributions.cpp); what it checks before costs half of its time.
    """
    logs = log_probabilities(logits)
    probs: Floats = torch.from_numpy(logs).softmax(-1).numpy()
    action = int((probs if deterministic else probs / _exponential(len(probs))).argmax())
    entropy = -total(logs * probs)
    return PolicyStep(action, probs, log_prob=logs.item(action), entropy=entropy, uncertainty=entropy)


def _exponential(size: int) -> Floats:
    noise = np.empty(size, np.float32)
    torch.from_numpy(noise).exponential_()
    return noise


def drawn_from_normal(mean: Floats, std: Floats) -> Floats:
    """A sample of independent normal distributions, (n,), as ``Normal.rsample`` draws it."""
    noise = np.empty_like(mean)
    torch.from_numpy(noise).normal_()
    return mean + noise * std


def normal_log_prob(values: Floats, mean: Floats, std: Floats, log_std: Floats) -> float:
    """The logarithm of the density of independent normal distributions at the values, all (n,), in nats."""
    distance = values - mean
    return total(-(distance * distance) / (2 * (std * std)) - log_std - _LOG_ROOT)


def squashed_log_prob(actions: Floats, mean: Floats, std: Floats) -> float:
    """The same of the tanh of normal distributions, as Stable-Baselines3 gives it for the squashed values, (n,)."""
    inner = actions.clip(-_EDGE, _EDGE)
    values = np.float32(0.5) * (_log1p(inner) - _log1p(-inner))
    slope = torch.from_numpy(1 - actions * actions + _EPSILON).log_().sum().item()
    return float(np.float32(normal_log_prob(values, mean, std, _log(std)) - slope))


def _log1p(row: Floats) -> Floats:
    logarithms: Floats = torch.from_numpy(row).log1p().numpy()
    return logarithms


def _log(row: Floats) -> Floats:
    logarithms: Floats = torch.from_numpy(row).log().numpy()
    return logarithms
