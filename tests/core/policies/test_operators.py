"""The bits of a small network's layers and of its distributions are those of torch's own."""

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

from rlhfblender_core.policies.actor_critic import FORBIDDEN  # noqa: E402 (likewise)
from rlhfblender_core.policies.distributions import (  # noqa: E402 (likewise)
    are_finite,
    choose,
    drawn_from_normal,
    log_probabilities,
    normal_log_prob,
    squashed_log_prob,
)
from rlhfblender_core.policies.operators import operator_of  # noqa: E402 (likewise)


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
        chosen = choose(row.numpy()[0], deterministic=deterministic)
        assert (chosen.action, *bits(chosen.log_prob, chosen.entropy, chosen.probs)) == known
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 6, 18, 64, 1000])
def test_choices_are_those_of_torchs_distribution(size: int, *, deterministic: bool) -> None:
    check_choices(rows(300, size), deterministic=deterministic)


@pytest.mark.parametrize("masked", [True, False])
def test_choices_among_allowed_actions_are_those_of_sb3_contrib(*, masked: bool) -> None:
    from sb3_contrib.common.maskable.distributions import MaskableCategorical

    for row in rows(300, 7):
        allowed = np.random.default_rng(0).random(7) < 0.5 if masked else None
        distribution = MaskableCategorical(logits=row)
        distribution.apply_masking(allowed)
        action = distribution.probs.argmax(dim=1)
        logits = log_probabilities(row.numpy()[0])
        chosen = choose(logits if allowed is None else np.where(allowed, logits, FORBIDDEN), deterministic=True)
        known = bits(distribution.log_prob(action).item(), distribution.entropy().item(), distribution.probs.numpy())
        assert (chosen.action, bits(chosen.log_prob, chosen.entropy, chosen.probs)) == (int(action), known)


@pytest.mark.parametrize("size", [1, 2, 6, 17, 40])
def test_densities_and_samples_are_those_of_stable_baselines3(size: int) -> None:
    from stable_baselines3.common.distributions import DiagGaussianDistribution, SquashedDiagGaussianDistribution

    for mean, log_std in zip(rows(200, size) / 100, rows(200, size) / 1e4, strict=True):
        std = log_std.exp()
        means, stds, log_stds = mean.numpy()[0], std.numpy()[0], std.log().numpy()[0]
        for kind in (DiagGaussianDistribution(size), SquashedDiagGaussianDistribution(size)):
            torch.manual_seed(1)
            distribution = kind.proba_distribution(mean, log_std)
            action = distribution.sample()
            torch.manual_seed(1)
            drawn = drawn_from_normal(means, stds)
            if isinstance(kind, SquashedDiagGaussianDistribution):
                drawn = torch.tanh(torch.from_numpy(drawn)).numpy()
                found = squashed_log_prob(drawn, means, stds)
            else:
                found = normal_log_prob(drawn, means, stds, log_stds)
            assert bits(drawn, found) == bits(action.numpy()[0], distribution.log_prob(action).item())


@pytest.mark.parametrize("wrong", [[0.0, math.nan, 1.0], [math.inf], [1e38, -1e38], [-math.inf] * 3])
def test_what_nothing_can_be_computed_of_is_told(wrong: list[float]) -> None:
    assert not are_finite(np.array(wrong, np.float32))
    assert are_finite(np.array([-1e8, 1e8], np.float32))


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
