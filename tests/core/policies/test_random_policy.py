"""The random policy: uniform, seeded by the episode alone, honest about what it knows, and free of torch."""

import math
import subprocess
import sys

import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.policies import RandomPolicy, UncertaintyKind

SPACES = [
    spaces.Discrete(4),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 5]),
    spaces.MultiBinary([2, 3]),
    spaces.Box(-1, 3, (2, 2), np.float32),
    spaces.Box(0, 255, (2,), np.uint8),
]


def actions(policy, count=20):
    return [policy.act(None).action for _ in range(count)]


@pytest.mark.parametrize("space", [*SPACES, spaces.Box(0, np.inf, (2,), np.float32)], ids=str)
def test_same_seed_gives_the_same_actions_whatever_ran_before(space):
    policy = RandomPolicy(space)
    policy.reset(1)
    first = actions(policy)
    np.random.rand(5)
    space.sample()
    policy.reset(2)
    assert not np.array_equal(actions(policy), first)
    policy.reset(1)
    assert np.array_equal(actions(policy), first)
    assert all(space.contains(action) for action in first)


@pytest.mark.parametrize("space", [spaces.Discrete(2**40), spaces.MultiDiscrete([2**40, 3])], ids=str)
def test_probabilities_of_more_actions_than_can_be_stored_are_left_out(space):
    step = RandomPolicy(space).act(None)
    assert step.probs is None
    assert step.entropy == pytest.approx(math.log(2**40) + (0 if isinstance(space, spaces.Discrete) else math.log(3)))


def test_actions_beyond_float32_have_an_infinite_deviation():
    step = RandomPolicy(spaces.Box(-1e300, 1e300, (1,), np.float64)).act(None)
    assert (step.action_mean.tolist(), step.action_std.tolist()) == ([0], [math.inf])
    assert step.entropy == pytest.approx(math.log(2e300))


def test_actions_are_not_the_numbers_the_environment_draws():
    """env.reset(seed=n) seeds the same kind of generator with n itself."""
    space = spaces.Box(0, 1, (8,), np.float64)
    policy = RandomPolicy(space)
    policy.reset(3)
    space.seed(3)
    assert not np.allclose(policy.act(None).action, space.sample())


def test_environments_own_action_space_is_untouched():
    space = spaces.Discrete(1000)
    space.seed(5)
    expected = [space.sample() for _ in range(5)]
    space.seed(5)
    policy = RandomPolicy(space)
    policy.reset(0)
    actions(policy)
    assert [space.sample() for _ in range(5)] == expected


@pytest.mark.parametrize(
    ("space", "shape", "entropy"),
    [
        (spaces.Discrete(4), (4,), math.log(4)),
        (spaces.MultiDiscrete([2, 5]), (7,), math.log(10)),
        (spaces.MultiBinary([2, 3]), (6,), 6 * math.log(2)),
    ],
)
def test_discrete_choices_are_uniform(space, shape, entropy):
    policy = RandomPolicy(space)
    policy.reset(0)
    step = policy.act(None)
    assert (step.probs.shape, step.probs.dtype) == (shape, np.float32)
    assert step.entropy == step.uncertainty == pytest.approx(entropy)
    assert step.log_prob == pytest.approx(-entropy)
    assert policy.uncertainty_kind is UncertaintyKind.ENTROPY
    step.probs[0] = 9
    assert policy.act(None).probs[0] < 1


def test_bounded_box_has_the_density_of_the_uniform_distribution():
    policy = RandomPolicy(spaces.Box(np.array([-1, 0], np.float32), np.array([3, 2], np.float32)))
    policy.reset(0)
    step = policy.act(None)
    np.testing.assert_allclose(step.action_mean, [1, 1])
    np.testing.assert_allclose(step.action_std, [4 / math.sqrt(12), 2 / math.sqrt(12)], rtol=1e-6)
    assert step.entropy == pytest.approx(math.log(8))
    assert step.probs is None


def test_unbounded_box_claims_nothing():
    policy = RandomPolicy(spaces.Box(np.array([0, -1], np.float32), np.array([np.inf, 1], np.float32)))
    policy.reset(0)
    step = policy.act(None)
    assert policy.uncertainty_kind is UncertaintyKind.NONE
    assert math.isnan(step.uncertainty)
    assert step.log_prob is step.entropy is step.action_mean is None


def test_random_policy_and_wrappers_never_import_torch():
    program = (
        "import sys, gymnasium\n"
        "import rlhfblender_core.checkpoints, rlhfblender_core.wrappers\n"
        "from rlhfblender_core.policies import RandomPolicy\n"
        "policy = RandomPolicy(gymnasium.spaces.Discrete(3)); policy.reset(0); policy.act(None)\n"
        "assert not {'torch', 'stable_baselines3', 'sb3_contrib', 'prefect'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
