"""What our loader's policies do and know is what Stable-Baselines3's own loader's do and know."""

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlhfblender_core.checkpoints import check_spaces, load_agent
from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.policies import UncertaintyKind

# The names of conftest's models: fixtures can't be used for parametrisation.
ON_POLICY = (
    "A2C", "PPO", "PPO-box", "PPO-sde", "PPO-multi-discrete", "PPO-multi-binary", "PPO-image", "PPO-unsorted", "TRPO",
    "MaskablePPO", "MaskablePPO-multi",
)  # fmt: skip
CRITICS = ("SAC", "SAC-her", "SAC-her-unsorted", "SAC-sde", "TD3", "DDPG", "TQC", "CrossQ")
ALL = (*ON_POLICY, "RecurrentPPO", "DQN", "QRDQN", *CRITICS, "ARS", "ARS-linear")


def comparisons(name: str) -> int:
    """One model of each algorithm is compared on 1,000 observations, variants on fewer."""
    return 100 if "-" in name else 1000


def observations(model: Any, count: int) -> list[Any]:
    model.observation_space.seed(7)
    return [model.observation_space.sample() for _ in range(count)]


def load(model: Any, *, deterministic: bool = True, **kwargs: Any) -> Any:
    ref = model.ref()
    check_spaces(ref, model.observation_space, model.action_space)
    policy = load_agent(ref, model.observation_space, model.action_space, deterministic=deterministic, **kwargs)
    policy.reset(3)
    return policy


def tensors(reference: Any, observation: Any) -> Any:
    return reference.policy.obs_to_tensor(observation)[0]


def test_every_model_is_compared(model_names):
    assert set(ALL) == set(model_names)
    assert {name.partition("-")[0] for name in ALL} == set(Algorithm)


@pytest.mark.parametrize("name", ALL)
def test_algorithm_is_recognised(trained, name):
    model = trained(name)
    assert model.ref().algorithm == model.algorithm


@pytest.mark.parametrize("name", [name for name in ALL if name != "RecurrentPPO"])
def test_actions_equal_those_of_sb3(trained, name):
    model = trained(name)
    reference, policy = model.load_with_sb3(), load(model)
    for observation in observations(model, comparisons(name)):
        expected, _ = reference.predict(observation, deterministic=True)
        action = policy.act(observation).action
        assert np.array_equal(action, expected)
        assert model.action_space.contains(action)


def test_recurrent_state_is_carried_as_sb3_does(trained):
    model = trained("RecurrentPPO")
    reference, policy = model.load_with_sb3(), load(model)
    state, start = None, np.ones(1, bool)
    for step, observation in enumerate(observations(model, 1000)):
        if step % 100 == 0:
            policy.reset(step)
            start = np.ones(1, bool)
        expected, state = reference.predict(observation, state=state, episode_start=start, deterministic=True)
        start = np.zeros(1, bool)
        assert policy.act(observation).action == expected


@pytest.mark.parametrize("name", ON_POLICY)
def test_distribution_and_value_equal_those_of_sb3(trained, name):
    model = trained(name)
    reference, policy = model.load_with_sb3(), load(model)
    for observation in observations(model, 50):
        step = policy.act(observation)
        seen = tensors(reference, observation)
        with torch.no_grad():
            distribution = reference.policy.get_distribution(seen)
            assert step.value == pytest.approx(float(reference.policy.predict_values(seen)), abs=1e-6)
            mode = distribution.get_actions(deterministic=True)
            assert step.log_prob == pytest.approx(float(distribution.log_prob(mode)), abs=1e-5)
            assert step.entropy == pytest.approx(float(distribution.entropy()), abs=1e-5)
        assert step.uncertainty == step.entropy
        assert_distribution(step, distribution, model.action_space)


def assert_distribution(step: Any, distribution: Any, space: spaces.Space[Any]) -> None:
    inner = getattr(distribution, "distributions", None) or distribution.distribution
    if isinstance(space, spaces.Box):
        np.testing.assert_allclose(step.action_mean, inner.mean[0].numpy(), atol=1e-6)
        np.testing.assert_allclose(step.action_std, inner.stddev[0].numpy(), rtol=1e-5)
        assert step.probs is None
        return
    parts = inner if isinstance(inner, list) else [inner]
    expected = np.concatenate([part.probs[0].numpy() for part in parts])
    np.testing.assert_allclose(step.probs, expected, atol=1e-6)
    assert step.probs.dtype == np.float32
    assert step.action_mean is None


def test_recurrent_value_and_entropy_equal_those_of_sb3(trained):
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    model = trained("RecurrentPPO")
    reference, policy = model.load_with_sb3(), load(model)
    network = reference.policy
    zeros = torch.zeros(network.lstm_hidden_state_shape)
    states = RNNStates((zeros, zeros), (zeros, zeros))
    for observation in observations(model, 50):
        seen, going = tensors(reference, observation), torch.zeros(1)
        with torch.no_grad():
            action, value, log_prob, after = network.forward(seen, states, going, deterministic=True)
            _, _, entropy = network.evaluate_actions(seen, action, states, going)
        states = after
        step = policy.act(observation)
        assert (step.value, step.log_prob) == (pytest.approx(float(value)), pytest.approx(float(log_prob)))
        assert step.entropy == pytest.approx(float(entropy))


@pytest.mark.parametrize("name", ["DQN", "QRDQN"])
def test_q_values_equal_those_of_sb3(trained, name):
    model = trained(name)
    reference, policy = model.load_with_sb3(), load(model)
    for observation in observations(model, 50):
        seen, step = tensors(reference, observation), policy.act(observation)
        with torch.no_grad():
            if name == "DQN":
                q_values = reference.policy.q_net(seen)[0]
                uncertainty = float(torch.distributions.Categorical(logits=q_values).entropy())
            else:
                quantiles = reference.policy.quantile_net(seen)[0]
                q_values = quantiles.mean(0)
                uncertainty = float(quantiles[:, int(step.action)].std(correction=0))
        np.testing.assert_allclose(step.q_values, q_values.numpy(), atol=1e-6)
        assert step.value == pytest.approx(float(q_values.max()), abs=1e-6)
        assert step.uncertainty == pytest.approx(uncertainty, abs=1e-6)
        assert step.probs is None


@pytest.mark.parametrize("name", CRITICS)
def test_critics_equal_those_of_sb3(trained, name):
    model = trained(name)
    reference, policy = model.load_with_sb3(), load(model)
    for observation in observations(model, 50):
        seen, step = tensors(reference, observation), policy.act(observation)
        with torch.no_grad():
            action = reference.policy.actor(seen) if name in ("TD3", "DDPG") else reference.policy.actor(seen, True)
            held = reference.policy.critic(seen, action)
            q_values = held.mean(2)[0] if name == "TQC" else torch.cat(held)[:, 0]
        np.testing.assert_allclose(step.q_values, q_values.numpy(), atol=1e-5)
        assert step.value == pytest.approx(float(q_values.min()), abs=1e-5)
        if name == "DDPG":
            assert policy.uncertainty_kind is UncertaintyKind.NONE
            assert np.isnan(step.uncertainty)
        else:
            assert policy.uncertainty_kind is UncertaintyKind.TWIN_CRITIC_GAP
            assert step.uncertainty == pytest.approx(float(abs(q_values[0] - q_values[1])), abs=1e-5)


@pytest.mark.parametrize("name", ["SAC", "TQC", "CrossQ"])
def test_squashed_log_probability_equals_that_of_sb3(trained, name):
    model = trained(name)
    reference, policy = model.load_with_sb3(), load(model, deterministic=False)
    for seed, observation in enumerate(observations(model, 20)):
        torch.manual_seed(seed)
        with torch.no_grad():
            action, log_prob = reference.policy.actor.action_log_prob(tensors(reference, observation))
        torch.manual_seed(seed)
        step = policy.act(observation)
        np.testing.assert_allclose(step.action, reference.policy.unscale_action(action.numpy())[0], rtol=1e-6)
        assert step.log_prob == pytest.approx(float(log_prob), abs=1e-4)
        assert step.entropy is None


@pytest.mark.parametrize("name", ["PPO", "PPO-box", "PPO-multi-binary", "SAC"])
def test_sampled_actions_equal_those_of_sb3(trained, name):
    model = trained(name)
    reference, policy = model.load_with_sb3(), load(model, deterministic=False)
    for seed, observation in enumerate(observations(model, 50)):
        torch.manual_seed(seed)
        expected, _ = reference.predict(observation, deterministic=False)
        torch.manual_seed(seed)
        assert np.array_equal(policy.act(observation).action, expected)


@pytest.mark.parametrize("name", ["PPO", "PPO-sde", "RecurrentPPO", "DQN", "SAC-sde", "TQC"])
def test_same_seed_gives_the_same_episode_whatever_ran_before(trained, name):
    model = trained(name)
    policy = load(model, deterministic=False)
    seen = observations(model, 20)

    def episode(seed: int) -> list[Any]:
        policy.reset(seed)
        return [policy.act(observation).action for observation in seen]

    first = episode(5)
    torch.rand(17)
    other = episode(6)
    assert np.array_equal(first, episode(5))
    if name not in ("DQN", "TQC"):  # these hardly explore
        assert not np.array_equal(first, other)


def test_masked_actions_are_never_chosen(trained):
    model = trained("MaskablePPO")
    policy = load(model, deterministic=False, action_masks=lambda: np.array([False, True, False]))
    for observation in observations(model, 20):
        step = policy.act(observation)
        assert step.action == 1
        np.testing.assert_allclose(step.probs, [0, 1, 0], atol=1e-6)


def test_epsilon_greedy_explores_at_the_saved_rate(trained):
    model = trained("DQN")
    reference, policy = model.load_with_sb3(), load(model, deterministic=False)
    rate = reference.exploration_rate
    seen = observations(model, 1000)
    others = sum(policy.act(o).action != reference.policy.predict(o, deterministic=True)[0] for o in seen)
    assert others / 1000 == pytest.approx(rate * 2 / 3, abs=0.06)


def test_acting_leaves_the_observation_alone(trained):
    model = trained("SAC-her")
    policy = load(model)
    observation = observations(model, 1)[0]
    before = {key: value.copy() for key, value in observation.items()}
    policy.act(observation)
    assert all(np.array_equal(observation[key], before[key]) for key in before)


def test_a_policy_that_only_acts_does_not_load_what_only_training_needs(trained):
    """torch's optimisers load its compiler: 800 modules, in each worker."""
    models = [trained(name) for name in ("PPO", "SAC", "QRDQN")]
    script = (
        "import pickle, sys; from rlhfblender_core.checkpoints import load_agent\n"
        "for ref, observed, acted in pickle.load(sys.stdin.buffer):\n"
        "    policy = load_agent(ref, observed, acted, deterministic=False)\n"
        "    policy.reset(3); policy.act(observed.sample())\n"
        "print('torch' in sys.modules, 'torch._dynamo' in sys.modules)\n"
    )
    agents = [(model.ref(), model.observation_space, model.action_space) for model in models]
    result = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(agents), capture_output=True, check=True)
    assert result.stdout.split() == [b"True", b"False"], result.stderr
