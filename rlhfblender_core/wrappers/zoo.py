"""RL Zoo's wrappers, which its agents were trained with. The Zoo itself isn't needed.

Unlike the originals, none of them changes the environment's own spaces or observations: those are recorded.
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlhfblender_core.errors import SpacesDifferError

Env = gym.Env[Any, Any]
Array = npt.NDArray[Any]
Wrapper = gym.Wrapper[Any, Any, Any, Any]
StepResult = tuple[Any, Any, bool, bool, dict[str, Any]]

_OBSERVATION = "observation"


class TimeFeatureWrapper(Wrapper):
    """One more entry in flat observations: the share of the episode's time that is left, from 1 to 0.

    Args:
        env: an environment with flat Box observations, alone or under ``observation`` in a Dict.
        max_steps: length of an episode if the environment has no limit of its own.
        test_mode: always 1, as at an episode's start.
    """

    def __init__(self, env: Env, max_steps: int = 1000, test_mode: bool = False) -> None:  # noqa: FBT001, FBT002
        super().__init__(env)
        flat = _flat_space(env, "TimeFeatureWrapper")
        self._dtype = flat.dtype
        wider = _box(np.append(flat.low, 0.0), np.append(flat.high, 1.0), flat)
        self.observation_space = _replaced(env.observation_space, wider)
        self._max_steps = _time_limit(env) or max_steps
        self._test_mode = test_mode
        self._step = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Starts with all time left."""
        self._step = 0
        observation, info = self.env.reset(**kwargs)
        return self._extended(observation), info

    def step(self, action: Any) -> StepResult:
        """A step less is left."""
        self._step += 1
        observation, *rest = self.env.step(action)
        return self._extended(observation), *rest

    def _extended(self, observation: Any) -> Any:
        left = np.array(1.0 if self._test_mode else 1 - self._step / self._max_steps, self._dtype)
        if isinstance(observation, dict):
            return {**observation, _OBSERVATION: np.append(observation[_OBSERVATION], left)}
        return np.append(observation, left)


class HistoryWrapper(Wrapper):
    """The last observations and actions side by side, oldest first, zeros before the first.

    Args:
        env: an environment with flat Box observations and actions.
        horizon: number of each.
    """

    def __init__(self, env: Env, horizon: int = 2) -> None:
        super().__init__(env)
        flat, actions = _flat_space(env, "HistoryWrapper"), env.action_space
        if not isinstance(actions, spaces.Box) or len(actions.shape) != 1:
            raise SpacesDifferError(f"HistoryWrapper needs flat Box actions, the environment has {actions}.")
        low = np.concatenate([np.tile(flat.low, horizon), np.tile(actions.low, horizon)])
        high = np.concatenate([np.tile(flat.high, horizon), np.tile(actions.high, horizon)])
        self.observation_space = _replaced(env.observation_space, _box(low, high, flat))
        self._observations = np.zeros(flat.shape[0] * horizon, flat.dtype)
        self._actions = np.zeros(actions.shape[0] * horizon, actions.dtype)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Starts with an empty history."""
        self._observations[...] = 0
        self._actions[...] = 0
        observation, info = self.env.reset(**kwargs)
        return self._extended(observation), info

    def step(self, action: Any) -> StepResult:
        """Adds the action and its observation."""
        observation, *rest = self.env.step(action)
        self._actions = _pushed(self._actions, np.asarray(action))
        return self._extended(observation), *rest

    def _extended(self, observation: Any) -> Any:
        newest = observation[_OBSERVATION] if isinstance(observation, dict) else observation
        self._observations = _pushed(self._observations, newest)
        history = np.concatenate([self._observations, self._actions])
        return {**observation, _OBSERVATION: history} if isinstance(observation, dict) else history


#: The same for Dict observations; both cases are in the one class here.
HistoryWrapperObsDict = HistoryWrapper

#: Entries of an observation that are velocities.
_VELOCITIES = {
    "Acrobot": (4, 5),
    "CartPole": (1, 3),
    "LunarLander": (2, 3, 5),
    "LunarLanderContinuous": (2, 3, 5),
    "MountainCar": (1,),
    "MountainCarContinuous": (1,),
    "Pendulum": (2,),
}


class MaskVelocityWrapper(gym.ObservationWrapper[Array, Any, Array]):
    """Observations with their velocities set to 0, so that an agent needs a memory."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        flat = _flat_space(env, "MaskVelocityWrapper")
        name = env.spec.id if env.spec is not None else ""
        # RL Zoo's own CartPoleNoVel-v1 and the like mask them already; twice does no harm.
        entries = _VELOCITIES.get(name.rpartition("/")[2].rpartition("-v")[0].removesuffix("NoVel"))
        if entries is None:
            raise SpacesDifferError(f"MaskVelocityWrapper doesn't know the velocities of {name!r}.")
        self._mask = np.ones(flat.shape, flat.dtype)
        self._mask[list(entries)] = 0

    def observation(self, observation: Array) -> Array:
        """The observation without velocities."""
        masked: Array = observation * self._mask
        return masked


class ActionNoiseWrapper(Wrapper):
    """Gaussian noise on every action, drawn from the environment's own generator.

    Args:
        env: an environment with Box actions.
        noise_std: its standard deviation.
    """

    def __init__(self, env: Env, noise_std: float = 0.1) -> None:
        super().__init__(env)
        self._noise_std = noise_std

    def step(self, action: Any) -> StepResult:
        """The step of a disturbed action, clipped to the space's bounds."""
        space = self.action_space
        if not isinstance(space, spaces.Box):
            raise SpacesDifferError(f"ActionNoiseWrapper needs Box actions, the environment has {space}.")
        noise = self.unwrapped.np_random.normal(0.0, self._noise_std, np.shape(action))
        return self.env.step(np.clip(action + noise, space.low, space.high).astype(space.dtype))


class ActionSmoothingWrapper(Wrapper):
    """Actions as an exponential moving average.

    Args:
        env: an environment with Box actions.
        smoothing_coef: weight of the past, from 0 to 1.
    """

    def __init__(self, env: Env, smoothing_coef: float = 0.0) -> None:
        super().__init__(env)
        self._past_share = smoothing_coef
        self._smooth: Any = None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Starts without a past."""
        self._smooth = None
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> StepResult:
        """The step of the smoothed action."""
        if self._smooth is None:
            self._smooth = np.zeros_like(action)
        self._smooth = self._past_share * self._smooth + (1 - self._past_share) * action
        return self.env.step(self._smooth)


class FrameSkip(Wrapper):
    """Repeats each action and sums the rewards.

    Args:
        env: any environment.
        skip: times an action is made.
    """

    def __init__(self, env: Env, skip: int = 4) -> None:
        super().__init__(env)
        self._skip = skip

    def step(self, action: Any) -> StepResult:
        """Up to ``skip`` steps."""
        total = 0.0
        for _ in range(self._skip):
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return observation, total, terminated, truncated, info


class OldFlatObsWrapper(gym.ObservationWrapper[Any, Any, Array]):
    """Image and one-hot mission of gym_minigrid in one flat array: letters and spaces only, 27 codes.

    Args:
        env: a MiniGrid environment.
        maxStrLen: length of the mission text.
    """

    _CODES = "abcdefghijklmnopqrstuvwxyz "

    def __init__(self, env: Env, maxStrLen: int = 96) -> None:  # noqa: N803 - gym_minigrid's name
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Dict) or "image" not in space.spaces or "mission" not in space.spaces:
            raise SpacesDifferError(f"FlatObsWrapper needs MiniGrid's image and mission, the environment has {space}.")
        self._length = maxStrLen
        size = int(np.prod(space["image"].shape or ())) + maxStrLen * len(self._CODES)
        self.observation_space = spaces.Box(0, 255, (size,), np.uint8)

    def observation(self, observation: Any) -> Array:
        """The flat observation; characters that gym_minigrid didn't know are left out."""
        text = np.zeros((self._length, len(self._CODES)), np.uint8)
        for place, letter in enumerate(observation["mission"].lower()[: self._length]):
            code = self._CODES.find(letter)
            if code >= 0:
                text[place, code] = 1
        return np.concatenate([observation["image"].ravel(), text.ravel()])


def _flat_space(env: Env, name: str) -> spaces.Box:
    space = env.observation_space
    if isinstance(space, spaces.Dict):
        space = space.spaces.get(_OBSERVATION, space)
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise SpacesDifferError(f"{name} needs flat Box observations, the environment has {env.observation_space}.")
    return space


def _replaced(space: spaces.Space[Any], flat: spaces.Box) -> spaces.Space[Any]:
    """The space with another flat part."""
    if isinstance(space, spaces.Dict):
        # As pairs: the keys of a mapping would be sorted.
        return spaces.Dict(list({**space.spaces, _OBSERVATION: flat}.items()))
    return flat


def _box(low: Array, high: Array, like: spaces.Box) -> spaces.Box:
    dtype: Any = like.dtype
    return spaces.Box(low.astype(dtype), high.astype(dtype), dtype=dtype)


def _pushed(held: Array, newest: Array) -> Array:
    pushed = np.roll(held, -newest.shape[-1], axis=-1)
    pushed[..., -newest.shape[-1] :] = newest
    return pushed


def _time_limit(env: Env) -> int | None:
    specs: tuple[Callable[[], Any], ...] = (lambda: env.spec, lambda: env.unwrapped.spec)
    for spec in specs:
        found = spec()
        if found is not None and found.max_episode_steps is not None:
            return int(found.max_episode_steps)
    return None
