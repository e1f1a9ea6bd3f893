"""The bits of a policy's decision are those of torch's own modules and distributions."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 (where torch is installed)
from torch.distributions import Categorical  # noqa: E402 (likewise)

from rlhfblender_core.policies.operators import choose, operator_of  # noqa: E402 (likewise)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


def rows(number: int, size: int) -> Any:
    """Normal numbers, of every magnitude from 1e-4 to 1e4."""
    return torch.randn(number, 1, size) * torch.logspace(-4, 4, number).reshape(-1, 1, 1)


def bits(*numbers: Any) -> list[bytes]:
    return [np.asarray(number, dtype=np.float32).tobytes() for number in numbers]


NETWORKS = {
    "tanh": [nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)],
    "relu": [nn.Linear(5, 33), nn.ReLU(), nn.Linear(33, 7), nn.ReLU()],
    "others": [nn.Tanh(), nn.Linear(5, 16, bias=False), nn.Tanh(), nn.LayerNorm(16), nn.ELU(), nn.Dropout(), nn.ReLU()],
    "none": [],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_give_the_bits_of_their_modules(name: str) -> None:
    network = nn.Sequential(*NETWORKS[name]).eval()
    operator = operator_of(network)
    for row in rows(500, 5):
        before = row.clone()
        assert torch.equal(operator(row), network(row))
        assert torch.equal(row, before)


def test_a_hook_sees_what_its_layer_gets() -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    expected, seen = network(torch.ones(1, 5)), []
    for layer in network:
        layer.register_forward_hook(lambda _layer, given, made: seen.append((given[0].clone(), made)))
    assert torch.equal(operator_of(network)(torch.ones(1, 5)), expected)
    for (_, made), (given, _) in itertools.pairwise(seen):
        assert torch.equal(made, given)
    assert len(seen) == len(network)


def check_choices(logits: Any, *, deterministic: bool) -> None:
    torch.manual_seed(1)
    expected = []
    for row in logits:
        distribution = Categorical(logits=row)
        action = distribution.probs.argmax(dim=1) if deterministic else distribution.sample()
        log_prob, entropy = distribution.log_prob(action), distribution.entropy()
        expected.append((int(action), *bits(log_prob.item(), entropy.item(), distribution.probs.numpy())))
    state = torch.get_rng_state()
    torch.manual_seed(1)
    for row, known in zip(logits, expected, strict=True):
        chosen = choose(row, deterministic=deterministic)
        assert (chosen.action, *bits(chosen.log_prob, chosen.entropy, chosen.probs.numpy())) == known
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 18, 64, 1000])
def test_choices_are_those_of_torchs_distribution(size: int, *, deterministic: bool) -> None:
    logits = rows(300, size)
    logits[::3, :, 1::2] = -math.inf  # actions that are never taken
    check_choices(logits, deterministic=deterministic)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_no_distribution_is_told_by_a_nan(wrong: float) -> None:
    for deterministic in (True, False):
        assert math.isnan(choose(torch.tensor([[0.0, wrong, 1.0]]), deterministic=deterministic).log_prob)
    assert math.isnan(choose(torch.full((1, 3), -math.inf), deterministic=True).log_prob)


@pytest.mark.soak
def test_a_million_observations_of_cartpole_give_torchs_bits(trained_cartpole: Path) -> None:
    from stable_baselines3 import PPO

    policy = PPO.load(trained_cartpole / "rl_model_128_steps.zip", device="cpu").policy
    layers = policy.mlp_extractor
    actor, critic, head, value = map(
        operator_of, (layers.policy_net, layers.value_net, policy.action_net, policy.value_net)
    )
    assert isinstance(policy.observation_space, gymnasium.spaces.Box)
    for seed in range(1000):
        torch.manual_seed(seed)
        seen = rows(1000, 4)
        logits = []
        for row in seen:
            latent = layers.policy_net(row)
            logits.append(policy.action_net(latent))
            assert torch.equal(head(actor(row)), logits[-1])
            assert torch.equal(value(critic(row)), policy.value_net(layers.value_net(row)))
        check_choices(logits, deterministic=bool(seed % 2))
