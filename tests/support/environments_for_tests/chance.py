"""Environments that draw numbers from elsewhere than the one that ``reset`` seeds, or remember earlier episodes."""

import functools
import itertools
import os
import random
import time
import uuid
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from tests.support.environments_for_tests.counting import Counting, Drawing

_ANYTHING = spaces.Box(-np.inf, np.inf, (2,), np.float64)


class _Showing(Counting):
    """Observes the number of steps, and whatever it has drawn or kept."""

    observation_space = _ANYTHING

    def _observe(self):
        return np.array([self.count, self._shown()], np.float64)


class Remembering(_Showing):
    """Keeps count of its resets."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.resets = 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        return super().reset(seed=seed)

    def _shown(self):
        return self.resets


class RememberingSteps(_Showing):
    """Keeps count of all its steps, unlike the observation of its first episode."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.steps = 0

    def step(self, action):
        self.steps += 1
        return super().step(action)

    def _shown(self):
        return self.steps


class SamplingSpaces(gymnasium.Env):
    """Draws observations from its own spaces, of which each instance has its own."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (as people write them)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode
        self.observation_space = spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.MultiDiscrete([9, 9])})
        self.action_space = spaces.Discrete(5)
        self.goals = spaces.Box(0, 1, (1,))

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self.observation_space.sample(), {"goal": self.goals.sample()}

    def step(self, action):
        self.count += 1
        reward = float(action == self.action_space.sample())
        return self.observation_space.sample(), reward, self.count == 5, False, {"goal": self.goals.sample()}

    def render(self):
        return np.full((16, 16, 3), 40 * self.count, np.uint8)


class SamplingInWrapper(gymnasium.ObservationWrapper):
    """A wrapper that draws from a space of its own."""

    def __init__(self, render_mode=None):
        super().__init__(Counting(render_mode=render_mode))
        self.observation_space = spaces.Box(0, 1, (3,))

    def observation(self, observation):
        return self.observation_space.sample()


class SamplingKeptSpaces(_Showing):
    """Draws from spaces that it keeps in a list, or makes when it needs one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.goals = {"near": [spaces.Box(0, 1, ())]}

    def _shown(self):
        return float(self.goals["near"][0].sample() + spaces.Box(0, 1, ()).sample())


class HoldingAnother(_Showing):
    """Shows an environment within it, which it resets without a seed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.other = Drawing()

    def reset(self, *, seed=None, options=None):
        self.other.reset()
        return super().reset(seed=seed)

    def _shown(self):
        return float(self.other._observe()[0])


class DrawingBeforeReset(_Showing):
    """Has a layout that its constructor draws."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.layout = self.np_random.random()

    def _shown(self):
        return self.layout


class DrawingFromTorch(_Showing):
    """Draws from torch, which it imports when it first needs it."""

    def _shown(self):
        import torch

        return torch.rand(1).item()


class DrawingFromAll(_Showing):
    def _shown(self):
        return random.random() + np.random.rand()


class Unseeded(_Showing):
    """Has a generator of its own, which nobody seeds."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._own = np.random.default_rng()

    def _shown(self):
        return self._own.random()


class UnseededLater(Unseeded):
    """Starts the same, and goes on by chance."""

    def _shown(self):
        return self._own.random() if self.count else 0.0


class RewardingByChance(Unseeded):
    def _shown(self):
        return 0.0

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, self._own.random(), *rest


_made = itertools.count()


class CountingInstances(_Showing):
    """Knows how many were made before it in its process."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._number = next(_made)

    def _shown(self):
        return self._number


class WatchingTheClock(_Showing):
    def _shown(self):
        return time.perf_counter()


class ObservingNaN(_Showing):
    def _shown(self):
        return float("nan")


class GrowingHarder(_Showing):
    """What its class keeps changes when an episode ends, and shows at the end of the next."""

    level = 0

    def step(self, action):
        observation, reward, terminated, *rest = super().step(action)
        if terminated:
            reward += GrowingHarder.level
            GrowingHarder.level += 1
        return observation, reward, terminated, *rest

    def _shown(self):
        return 0.0


class SharingAGenerator(_Showing):
    """Draws from a generator of its module, which is seeded when that is imported."""

    def _shown(self):
        return _generator.random()


class ExploringTogether(_Showing):
    """Rewards what no environment of its class has seen."""

    seen: ClassVar[set] = set()

    def step(self, action):
        observation, _, *rest = super().step(action)
        is_new = self.count not in self.seen
        self.seen.add(self.count)
        return observation, float(is_new), *rest

    def _shown(self):
        return 0.0


class SeededByItsProcess(_Showing):
    """Its seed is the number of its process."""

    def _shown(self):
        return random.Random(os.getpid()).random()


class SeededByTheSecond(_Showing):
    """Two environments that are made in the same second are alike."""

    def _shown(self):
        return random.Random(int(time.time())).random()


class DrawnOnce(_Showing):
    """Whoever comes first decides it for all environments of the process."""

    def _shown(self):
        return _draw_once()


class InOrderOfArrival(_Showing):
    """Each new seed gets the next number."""

    def _shown(self):
        return _places.setdefault(self.seed, len(_places))


class NamingSteps(_Showing):
    """Only its infos are others each time."""

    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {"id": str(uuid.uuid4())}

    def _shown(self):
        return 0.0


class PaintedByChance(_Showing):
    """Only its pictures are others each time."""

    def render(self):
        return np.frombuffer(os.urandom(16 * 16 * 3), np.uint8).reshape(16, 16, 3)

    def _shown(self):
        return 0.0


class OrderingNames(_Showing):
    """Goes through a set of texts, whose order is another in each process that hashes texts otherwise."""

    def _shown(self):
        return float(int("".join(sorted(_NAMES, key=hash)), 16))


_NAMES = {"a", "b", "c", "d", "e", "f"}
_places: dict = {}


@functools.lru_cache
def _draw_once():
    return random.random()


_generator = np.random.default_rng(0)
