"""Wrappers come from a table, show what RL Zoo's and SB3's show, and leave the environment's own data alone."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.errors import (
    CheckpointNotUsableError,
    EnvironmentNotUsableError,
    InvalidParameterError,
    SpacesDifferError,
)
from rlhfblender_core.wrappers import (
    AgentSettings,
    WrapperSpec,
    action_mask_source,
    settings_from_env_kwargs,
    wrap_environment,
)
from rlhfblender_core.wrappers.table import WRAPPERS

ATARI = "stable_baselines3.common.atari_wrappers.AtariWrapper"


def spec(name: str, **kwargs: Any) -> WrapperSpec:
    return WrapperSpec(name, kwargs)


class RawRecorder(gym.Wrapper):
    """Keeps what the environment itself returned."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.seen: list[Any] = []
        self.rewards = 0.0

    def reset(self, **kwargs: Any) -> Any:
        observation, info = self.env.reset(**kwargs)
        self.seen.append(observation)
        return observation, info

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self.seen.append(result[0])
        self.rewards += float(result[1])
        return result


class GoalEnv(gym.Env):
    observation_space = spaces.Dict(
        {"observation": spaces.Box(-1, 1, (2,), np.float64), "desired_goal": spaces.Box(0, 1)}
    )
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return {"observation": np.zeros(2), "desired_goal": np.zeros(1, np.float32)}, {}

    def step(self, action: Any) -> Any:
        return {"observation": np.ones(2), "desired_goal": np.zeros(1, np.float32)}, 1.0, False, False, {}


@pytest.mark.parametrize("name", sorted(name for name in WRAPPERS if not name.startswith(("minigrid", "gym_minigrid"))))
def test_every_target_of_the_table_exists(name):
    import importlib

    module, _, attribute = WRAPPERS[name].partition(":")
    if module:
        assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("prefix", ["rl_zoo3.wrappers", "utils.wrappers", "sb3_contrib.common.wrappers"])
def test_time_feature_equals_that_of_sb3_contrib(prefix):
    from sb3_contrib.common.wrappers import TimeFeatureWrapper

    ours = wrap_environment(gym.make("Pendulum-v1"), [spec(f"{prefix}.TimeFeatureWrapper")])
    theirs = TimeFeatureWrapper(gym.make("Pendulum-v1"))
    assert ours.observation_space == theirs.observation_space
    np.testing.assert_array_equal(ours.reset(seed=1)[0], theirs.reset(seed=1)[0])
    for _ in range(5):
        action = np.zeros(1, np.float32)
        np.testing.assert_array_equal(ours.step(action)[0], theirs.step(action)[0])


@pytest.mark.parametrize("name", ["TimeFeatureWrapper", "HistoryWrapper", "HistoryWrapperObsDict"])
def test_recorded_observations_and_spaces_stay_the_environments_own(name):
    raw = RawRecorder(GoalEnv())
    env = wrap_environment(raw, [spec(f"rl_zoo3.wrappers.{name}")])
    first, _ = env.reset(seed=0)
    second, *_ = env.step(np.zeros(1, np.float32))
    assert [seen["observation"].shape for seen in raw.seen] == [(2,), (2,)]
    assert raw.observation_space["observation"].shape == (2,)
    assert env.observation_space.contains(first)
    assert env.observation_space.contains(second)


def test_wrapped_parts_of_a_dict_keep_their_order():
    """A plain mapping would be sorted."""

    class Unsorted(GoalEnv):
        observation_space = spaces.Dict([("observation", spaces.Box(-1, 1, (2,))), ("desired_goal", spaces.Box(0, 1))])

    env = wrap_environment(Unsorted(), [spec("rl_zoo3.wrappers.TimeFeatureWrapper")])
    assert list(env.observation_space) == ["observation", "desired_goal"]


def test_history_holds_the_last_observations_and_actions_and_is_cleared():
    env = wrap_environment(gym.make("Pendulum-v1"), [spec("rl_zoo3.wrappers.HistoryWrapper", horizon=2)])
    first, _ = env.reset(seed=0)
    assert first.shape == env.observation_space.shape == (8,)
    assert not first[:3].any()
    assert not first[6:].any()
    action = np.array([1.5], np.float32)
    second, *_ = env.step(action)
    np.testing.assert_array_equal(second[:3], first[3:6])
    np.testing.assert_array_equal(second[6:], [0, 1.5])
    again, _ = env.reset(seed=0)
    np.testing.assert_array_equal(again, first)


def test_velocities_are_masked_by_environment():
    env = wrap_environment(gym.make("CartPole-v1"), [spec("rl_zoo3.wrappers.MaskVelocityWrapper")])
    env.reset(seed=0)
    observation, *_ = env.step(1)
    assert observation[[1, 3]].tolist() == [0, 0]
    assert observation[[0, 2]].all()


def test_frame_skip_sums_rewards():
    env = wrap_environment(gym.make("CartPole-v1"), [spec("rl_zoo3.wrappers.FrameSkip", skip=3)])
    env.reset(seed=0)
    assert env.step(0)[1] == 3


def test_action_noise_depends_on_the_environments_seed_alone():
    def episode() -> list[float]:
        env = wrap_environment(gym.make("Pendulum-v1"), [spec("utils.wrappers.ActionNoiseWrapper", noise_std=0.5)])
        env.reset(seed=4)
        return [env.step(np.zeros(1, np.float32))[1] for _ in range(5)]

    assert episode() == episode()


def test_action_smoothing_averages():
    raw = RawRecorder(gym.make("Pendulum-v1"))
    env = wrap_environment(raw, [spec("rl_zoo3.wrappers.ActionSmoothingWrapper", smoothing_coef=0.5)])
    env.reset(seed=4)
    env.step(np.ones(1, np.float32))
    assert env.get_wrapper_attr("_smooth") == pytest.approx(0.5)


def test_wrappers_that_change_only_rewards_are_left_out():
    env = gym.make("CartPole-v1")
    names = ["rl_zoo3.wrappers.DelayedRewardWrapper", "stable_baselines3.common.monitor.Monitor"]
    assert wrap_environment(env, [spec(name) for name in names]) is env


def test_unknown_wrapper_is_refused_with_the_closest_known():
    with pytest.raises(CheckpointNotUsableError, match=r"Did you mean '.*\.FrameSkip'"):
        wrap_environment(gym.make("CartPole-v1"), [spec("my.FrameSkp")])


def test_wrapper_that_does_not_fit_is_one_line():
    with pytest.raises(CheckpointNotUsableError, match="doesn't go with this environment") as caught:
        wrap_environment(
            gym.make("CartPole-v1"), [spec("gymnasium.wrappers.RescaleAction", min_action=0, max_action=1)]
        )
    assert "\n" not in str(caught.value)
    with pytest.raises(SpacesDifferError, match="image observations"):
        wrap_environment(gym.make("CartPole-v1"), [spec("gym.wrappers.ResizeObservation", shape=64)])


def test_trusted_wrapper_is_imported():
    env = wrap_environment(gym.make("CartPole-v1"), [spec("gymnasium.wrappers.OrderEnforcing")], trust=True)
    assert isinstance(env, gym.wrappers.OrderEnforcing)


class Masked(GoalEnv):
    action_space = spaces.Discrete(2)

    def action_masks(self) -> list[bool]:
        return [True, False]

    def allowed(self) -> list[int]:
        return [0, 1]

    def allowed_in(self, env: gym.Env) -> list[int]:
        return self.allowed()

    def three(self) -> list[int]:
        return [0, 1, 1]


def test_action_mask_source_is_the_environments_method():
    source = action_mask_source(gym.Wrapper(Masked()))
    assert source is not None
    assert source().tolist() == [True, False]
    assert action_mask_source(gym.Wrapper(Masked()), "allowed")().tolist() == [False, True]
    assert action_mask_source(gym.Wrapper(Masked()), "none") is None
    assert action_mask_source(gym.Wrapper(GoalEnv())) is None


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(EnvironmentNotUsableError, match=r"three\(\) returned 3 flags, the actions take 2"):
        action_mask_source(Masked(), "three")()


@pytest.mark.parametrize("module", ["sb3_contrib.common.wrappers", "sb3_contrib.common.wrappers.action_masker"])
def test_the_masker_of_an_agents_settings_names_the_method(module):
    env = wrap_environment(Masked(), [spec(f"{module}.ActionMasker", action_mask_fn="allowed_in")])
    assert action_mask_source(env)().tolist() == [False, True]


@pytest.mark.parametrize(
    ("given", "wrappers", "frames"),
    [
        ({"env_wrapper": ATARI, "frame_stack": 4}, (WrapperSpec(ATARI),), 4),
        ({"env_wrapper": [ATARI, {"a.B": {"c": 1}}]}, (WrapperSpec(ATARI), WrapperSpec("a.B", {"c": 1})), None),
        ({"env_wrapper": "['a.B', {'c.D': dict(e=2)}]"}, (WrapperSpec("a.B"), WrapperSpec("c.D", {"e": 2})), None),
        ({"vec_env_wrapper": {"stable_baselines3.common.vec_env.VecFrameStack": {"n_stack": 3}}}, (), 3),
        ({"frame_stack": 1}, (), None),
        ({"frame_stack": "4"}, (), 4),
        ({}, (), None),
    ],
)
def test_settings_are_split_from_env_kwargs(given, wrappers, frames):
    settings, rest = settings_from_env_kwargs({**given, "difficulty": "hard"})
    assert settings == AgentSettings(frame_stack=frames, wrappers=wrappers)
    assert rest == {"difficulty": "hard"}


@pytest.mark.parametrize(
    "given",
    [
        {"frame_stack": "many"},
        {"frame_stack": -3},
        {"env_wrapper": 5},
        {"env_wrapper": "[os.system('x')]"},
        {"vec_env_wrapper": "a.VecCustom"},
    ],
)
def test_settings_that_are_not_understood_are_refused(given):
    with pytest.raises(InvalidParameterError):
        settings_from_env_kwargs(given)


def test_users_settings_come_before_the_agents():
    agent = AgentSettings(frame_stack=4, norm_obs=True, wrappers=(WrapperSpec("a"),), env_kwargs={"x": 1, "y": 1})
    user = AgentSettings(frame_stack=2, env_kwargs={"x": 2})
    assert agent.overridden_by(user) == AgentSettings(2, True, (WrapperSpec("a"),), {"x": 2, "y": 1})


@pytest.fixture
def breakout(monkeypatch: pytest.MonkeyPatch) -> gym.Env:
    ale_py = pytest.importorskip("ale_py", reason="Atari needs the extra 'atari'")
    pytest.importorskip("cv2", reason="Atari preprocessing needs OpenCV")
    gym.register_envs(ale_py)
    return gym.make("BreakoutNoFrameskip-v4")


def test_atari_episode_is_a_game_and_not_a_life(breakout):
    raw = RawRecorder(breakout)
    env = wrap_environment(raw, [spec(ATARI)])
    observation, _ = env.reset(seed=1)
    assert observation.shape == (84, 84, 1)
    lives, total, ended = breakout.unwrapped.ale.lives(), 0.0, False
    for _ in range(2000):
        # Never presses FIRE: the next life starts by itself, as in training.
        observation, reward, terminated, truncated, _ = env.step(3)
        total += float(reward)
        now = breakout.unwrapped.ale.lives()
        assert terminated == (now == 0)
        lives = min(lives, now)
        ended = terminated or truncated
        if ended:
            break
    assert ended
    assert lives == 0
    assert total == raw.rewards


def test_atari_first_life_equals_that_of_sb3(breakout):
    from stable_baselines3.common.atari_wrappers import AtariWrapper

    ours = wrap_environment(breakout, [spec(ATARI)])
    theirs = AtariWrapper(gym.make("BreakoutNoFrameskip-v4"), terminal_on_life_loss=False)
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for action in (1, 2, 2, 3, 3, 0, 2) * 3:
        np.testing.assert_array_equal(ours.step(action)[0], theirs.step(action)[0])


@pytest.mark.parametrize("package", ["minigrid", "gym_minigrid"])
def test_flat_minigrid_observations_have_the_packages_length(package):
    minigrid = pytest.importorskip("minigrid", reason="needs the extra 'minigrid'")
    gym.register_envs(minigrid)
    env = wrap_environment(gym.make("MiniGrid-Empty-5x5-v0"), [spec(f"{package}.wrappers.FlatObsWrapper")])
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == ((2835,) if package == "minigrid" else (2739,))


def test_grey_and_resized_images_are_those_of_gyms_time():
    cv2 = pytest.importorskip("cv2", reason="image wrappers need OpenCV")

    class Images(gym.Env):
        observation_space = spaces.Box(0, 255, (96, 96, 3), np.uint8)
        action_space = spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return np.arange(96 * 96 * 3, dtype=np.uint8).reshape(96, 96, 3), {}

    names = (
        "gym.wrappers.resize_observation.ResizeObservation",
        "gym.wrappers.gray_scale_observation.GrayScaleObservation",
    )
    env = wrap_environment(Images(), [spec(names[0], shape=64), spec(names[1], keep_dim=True)])
    observation, _ = env.reset()
    raw, _ = Images().reset()
    expected = cv2.cvtColor(cv2.resize(raw, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(observation[..., 0], expected)
    assert env.observation_space.shape == (64, 64, 1)


def test_wrappers_that_want_tuples_get_them_though_settings_have_lists():
    from gymnasium import spaces

    class Picture(gym.Env):
        observation_space = spaces.Box(0, 255, (40, 44, 3), np.uint8)
        action_space = spaces.Discrete(2)

    grey = spec("gymnasium.wrappers.GrayscaleObservation", keep_dim=True)
    small = spec("gymnasium.wrappers.ResizeObservation", shape=[36, 30])
    assert wrap_environment(Picture(), [grey, small]).observation_space.shape[:2] == (36, 30)
    with pytest.raises(CheckpointNotUsableError, match="ResizeObservation' doesn't go with this environment"):
        wrap_environment(Picture(), [spec("gymnasium.wrappers.ResizeObservation", shape=[36, 30, 7, 7])])
