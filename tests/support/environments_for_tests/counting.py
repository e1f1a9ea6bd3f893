"""Environments that count their steps, and what they observe, draw, reward and tell besides."""

import os
import random
import signal
import time
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

ACTION_SPACES = {
    "discrete": spaces.Discrete(3),
    "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "multi_binary": spaces.MultiBinary(4),
}


def reward_of(step: int, action: object) -> float:
    """What taking the action in step ``step`` brings: tells both apart, whatever the action space."""
    return 10.0 * step + float(np.sum(np.asarray(action, np.float64)))


class Counting(gymnasium.Env):
    """Observes the number of steps taken; frames get brighter by 20 with every step."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 20}
    observation_space = spaces.Box(0, np.inf, (1,), np.float32)

    def __init__(self, length=5, ends="terminated", actions="discrete", height=16, width=24, render_mode=None):
        self.length, self.ends, self.height, self.width = length, ends, height, width
        self.render_mode = render_mode
        self.action_space = ACTION_SPACES[actions]
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.count = seed, 0
        return self._observe(), {}

    def step(self, action):
        _count_step()
        self._let_events_happen()
        reward = reward_of(self.count, action)
        self.count += 1
        is_over = self.count == self.length
        info = {"count": self.count, "text": "x" * self.count}
        return (
            self._observe(),
            reward,
            is_over and self.ends == "terminated",
            is_over and self.ends == "truncated",
            info,
        )

    def render(self):
        return np.full((self.height, self.width, 3), min(255, 20 * self.count), np.uint8)

    def _observe(self):
        return np.full(1, self.count, np.float32)

    def _let_events_happen(self):
        for event in os.environ.get("ENVIRONMENTS_FOR_TESTS_EVENTS", "").split():
            what, _, where = event.partition("@")
            seed, step, *marker = where.split(":", 2)
            if (int(seed), int(step)) == (self.seed, self.count):
                _happen(what, Path(marker[0]) if marker else None)


def _count_step():
    path = os.environ.get("ENVIRONMENTS_FOR_TESTS_STEPS")
    if path:
        with Path(path).open("ab") as stream:
            stream.write(b".")


def _happen(what, marker):
    if what == "raise":
        raise RuntimeError("the floor\nis lava")
    if what == "exit":
        raise SystemExit("goodbye")
    if what == "kill" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        marker.touch()
        time.sleep(600)


class Structured(Counting):
    """Observes texts, flags and numbers in dictionaries and tuples."""

    observation_space = spaces.Dict(
        {
            "position": spaces.Box(0, np.inf, (2,), np.float64),
            "mission": spaces.Text(12),
            "inner": spaces.Dict(
                {
                    "flags": spaces.MultiBinary(3),
                    "pair": spaces.Tuple((spaces.Discrete(100), spaces.MultiDiscrete([100, 3]))),
                }
            ),
        }
    )

    def _observe(self):
        n = self.count
        flags = np.array([n & 1, n & 2, n & 4]).astype(bool).astype(np.int8)
        pair = (np.int64(n), np.array([n, n % 3]))
        return {
            "position": np.array([n, 2.0 * n]),
            "mission": f"go {n}",
            "inner": {"flags": flags, "pair": pair},
        }


class Slashed(Counting):
    """Observes under keys that are no names of files or groups."""

    observation_space = spaces.Dict({key: spaces.Box(0, np.inf, (1,), np.float32) for key in ("a/b", ".")})

    def _observe(self):
        return {key: np.full(1, self.count, np.float32) for key in ("a/b", ".")}


class Reusing(Counting):
    """Returns the same array again and again, changed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._array = np.zeros(1, np.float32)

    def _observe(self):
        self._array[:] = self.count
        return self._array


class Drawing(Counting):
    """Starts somewhere that depends on the seed, and moves by chance."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._observe(), {}

    def _observe(self):
        return self.np_random.normal(size=1)


class Black(Counting):
    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


class Constant(Counting):
    def render(self):
        return np.full((16, 16, 3), 99, np.uint8)


class Blind(Counting):
    metadata: ClassVar = {"render_modes": []}

    def __init__(self, length=5):
        super().__init__(length=length)


class Endless(Counting):
    def __init__(self, render_mode=None):
        super().__init__(length=-1, render_mode=render_mode)


class Growing(Counting):
    """Its pictures change their size at step 3."""

    def render(self):
        return np.full((16 + 2 * (self.count // 3), 16, 3), 7, np.uint8)


class FailsToClose(Counting):
    def close(self):
        raise RuntimeError("the door is stuck")


class SaysGoodbye(Counting):
    def close(self):
        print("goodbye")


class Misfitting(Counting):
    """Observes something else than it says, from step 2 on."""

    def _observe(self):
        return np.zeros(1 if self.count < 2 else 3, np.float32)


class Thing:
    """Something whose repr holds its address."""


class Telling(Counting):
    """Infos that JSON has no form for."""

    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {"thing": Thing(), 1: np.arange(2), "long": np.longdouble(1.5), "set": {"b", "a"}}


class NotAnEnv:
    def __init__(self, render_mode=None):
        pass


class Odd(Counting):
    """Rewards and infos that JSON has no numbers for."""

    def step(self, action):
        observation, _, *ends, _ = super().step(action)
        reward = {1: float("inf"), 2: float("nan")}.get(self.count, 1.0)
        return observation, reward, *ends, {"nothing": float("nan"), "half\ud83d": "a\ud83d\ude00"}


REWARDS = {
    "array": np.array([1.5]),
    "scalar": np.float32(1.5),
    "zero_dimensions": np.array(1.5),
    "two": np.array([1.0, 2.0]),
    "none": None,
    "text": "1.5",
    "complex": 1.5 + 0j,
    "vast": 1e308,
}


class Unseeded(Counting):
    """Not determined by its seed: rewards are drawn anew in every episode, whatever the seed."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(int.from_bytes(os.urandom(6))), *rest


class Unsettled(Counting):
    """Observes something else in every episode, whatever the seed."""

    def _observe(self):
        return np.full(1, int.from_bytes(os.urandom(2)), np.float32)


ENDS = {
    "flag": np.True_,
    "number": 1,
    "array": np.array([True]),
    "text": "False",
    "none": None,
    "NaN": float("nan"),
    "several": np.array([True, False]),
    "dict": {"agent": True},
}


class Rewarding(Counting):
    """Rewards of some type."""

    def __init__(self, reward="array", render_mode=None):
        super().__init__(render_mode=render_mode)
        self._reward = REWARDS[reward]

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, self._reward, *rest


class Ending(Counting):
    """Says in some other way than by a flag that its fifth step is the last one."""

    def __init__(self, end="flag", render_mode=None):
        super().__init__(render_mode=render_mode)
        self._end = ENDS[end]

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, self._end if terminated else False, truncated, info


class Vast(Rewarding):
    """Observes one of more values than memory holds."""

    observation_space = spaces.Discrete(2**40)

    def _observe(self):
        return self.count


class Unready(Counting):
    """Observes a text that its space doesn't know of."""

    def _observe(self):
        return "not ready"


class DrawingGlobally(Counting):
    """Draws from Python's and NumPy's global generators, in the constructor too."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)

    def __init__(self, render_mode=None):
        super().__init__(render_mode=render_mode)
        self._level = random.random()

    def _observe(self):
        return np.array([self._level, random.random(), np.random.random()])


class Listing(Counting):
    """Infos that are no dictionaries."""

    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, None if self.count == 1 else [self.count]


class Remembered(Counting):
    """Gives its state and takes it back."""

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


class RememberedInARow(Counting):
    """Its state is a row of numbers."""

    def get_state(self):
        return np.array([self.count, 0])

    def set_state(self, state):
        self.count = int(state[0])


class Forgetting(Remembered):
    """When it ends is drawn by the reset, and in no state."""

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        self.length = int(self.np_random.integers(3, 30))
        return observation, info
