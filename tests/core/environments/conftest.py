"""A package of small environments outside the project, importable only inside the test that asks for it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gymnasium.envs.registration import registry

OUTSIDE = '''
"""Environments such as a user might have."""
import os

import gymnasium
import numpy as np
from gymnasium import spaces


class Counting(gymnasium.Env):
    """Counts its steps, and is over after ``length`` of them."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}
    observation_space = spaces.Box(0, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length=3, difficulty="easy", render_mode=None):
        self.length, self.difficulty, self.render_mode = length, difficulty, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.full(1, self.count, np.float32), 1.0, self.count >= self.length, False, {}

    def render(self):
        return np.full((4, 6, 3), self.count, np.uint8)


class Talking(Counting):
    def __init__(self, render_mode=None):
        print("hello from the environment")
        super().__init__(render_mode=render_mode)


class Blind(Counting):
    metadata = {"render_modes": []}

    def __init__(self, length=3):
        super().__init__(length)


class Asserting(Counting):
    metadata = {"render_modes": ["human"]}

    def __init__(self, render_mode=None):
        assert render_mode is None or render_mode in self.metadata["render_modes"]


class LateMetadata(Counting):
    """Its metadata are known once it exists."""

    metadata = {}

    def __init__(self, render_mode=None):
        super().__init__(render_mode=render_mode)
        self.metadata = {"render_modes": ["rgb_array"]}


class OpensWindows(Counting):
    """A careless default, which --no-render has to override."""

    def __init__(self, render_mode="human"):
        super().__init__(render_mode=render_mode)


class Forwarding(Counting):
    def __init__(self, size=5, **kwargs):
        super().__init__(**kwargs)
        self.size = size


class Popping(Counting):
    def __init__(self, **kwargs):
        self.secret = kwargs.pop("secret", None)
        super().__init__(**kwargs)


class WithoutConstructor(gymnasium.Env):
    observation_space = Counting.observation_space
    action_space = Counting.action_space


class NeedsSize(Counting):
    def __init__(self, size, render_mode=None):
        super().__init__(render_mode=render_mode)


class WantsTuple(Counting):
    def __init__(self, span, render_mode=None):
        if not isinstance(span, tuple):
            raise ValueError(f"span must be a tuple, not {span}")
        super().__init__(render_mode=render_mode)
        self.span = span


class Changing(Counting):
    def __init__(self, config=None):
        config["changed"] = True


class Broken(Counting):
    def __init__(self, render_mode=None):
        raise RuntimeError("no licence\\nfound")


class NeedsPackage(Counting):
    def __init__(self, render_mode=None):
        import package_that_nobody_has


class WantsTuplesDeepDown(Counting):
    def __init__(self, config, sizes=(), render_mode=None):
        shape = config["observation"]["shape"]
        self.shapes = shape + (1,), sizes + [1]
        super().__init__(render_mode=render_mode)


class InsistsOnRendering(Counting):
    def __init__(self, render_mode="rgb_array"):
        if render_mode not in ("rgb_array", "human"):
            raise ValueError("The 'render' argument is must be in {'rgb_array', 'human'}")
        super().__init__(render_mode=render_mode)


class DeclaresNothing(Counting):
    metadata = {}


class DeclaresAsGymDid(Counting):
    metadata = {"render.modes": ["rgb_array"], "video.frames_per_second": 12}


class RendersLists(Counting):
    metadata = {"render_modes": ["rgb_array_list"]}


class FourValues(Counting):
    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, {}


class ThreeValues(Counting):
    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True


class VectorRewards(Counting):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, np.array([1.0, 2.0]), *rest


class NoReward(Counting):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, None, *rest


class SwappedInfo(Counting):
    def step(self, action):
        *rest, truncated, info = super().step(action)
        return *rest, info, truncated


class EndsForEachAgent(Counting):
    def step(self, action):
        observation, reward, terminated, *rest = super().step(action)
        return observation, reward, np.array([terminated, terminated]), *rest


class NoInfo(Counting):
    observation_space = spaces.Box(0, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32)


class NoSeed(Counting):
    def reset(self):
        return np.zeros(1, np.float32)


class NoOptions(Counting):
    def reset(self, seed=None):
        return super().reset(seed=seed)


class AssertsBarely(Counting):
    def reset(self, *, seed=None, options=None):
        assert (
            self.length > 99
        )


class NoStep(Counting):
    def step(self, action):
        raise NotImplementedError


class SequenceObservations(Counting):
    observation_space = spaces.Sequence(spaces.Discrete(2))


class OneOfActions(Counting):
    action_space = spaces.OneOf((spaces.Discrete(2), spaces.Discrete(3)))


class DictActions(Counting):
    action_space = spaces.Dict({"a": spaces.Discrete(2)})


class GraphObservations(Counting):
    observation_space = spaces.Graph(spaces.Discrete(2), None)


class NoSpaces(Counting):
    observation_space = None


class BrokenReset(Counting):
    def reset(self, *, seed=None, options=None):
        raise RuntimeError("the level file is gone")


class BrokenRender(Counting):
    def render(self):
        raise RuntimeError("no paint")


class RendersText(Counting):
    def render(self):
        return "a picture"


class RendersFloats(Counting):
    def render(self):
        return np.zeros((4, 6, 3))


class RendersNothing(Counting):
    def render(self):
        return np.zeros((0, 6, 3), np.uint8)


class RendersTooMuch(Counting):
    def render(self):
        return np.zeros((2, 16385, 3), np.uint8)


class Exiting(Counting):
    def reset(self, *, seed=None, options=None):
        raise SystemExit(0)


class ObservesText(Counting):
    def reset(self, *, seed=None, options=None):
        return "a state", {}


class Wandering(Counting):
    def __init__(self, render_mode=None):
        super().__init__(render_mode=render_mode)
        os.chdir("/")


class Stuck(Counting):
    def close(self):
        print("goodbye")
        raise RuntimeError("the door is stuck")


class NotAnEnv:
    pass


class Wrapped(gymnasium.Wrapper):
    def __init__(self, render_mode=None):
        super().__init__(Counting(render_mode=render_mode))


def counting(length=3, render_mode=None):
    return Counting(length, render_mode=render_mode)


def not_an_env(render_mode=None):
    return NotAnEnv()


a_number = 5
'''

FILES = {
    "outside_envs.py": OUTSIDE,
    "outside_registering.py": """
import gymnasium
gymnasium.register("OutsideRegistered-v0", "outside_envs:Counting", max_episode_steps=9)
gymnasium.register("outside/Classy-v0", __import__("outside_envs").Counting, kwargs={"render_mode": "human"})
print("thank you for using outside_registering")
""",
    "outside_needing.py": "import package_that_nobody_has.deeper\n",
    "outside_old_gym.py": "import gym\n",
    "outside_raising.py": "raise RuntimeError('wrong\\nplatform')\n",
    "outside_exiting.py": "raise SystemExit(3)\n",
}


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the outside package; what tests register or import from it is forgotten afterwards."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    known = set(registry)
    yield tmp_path
    for env_id in set(registry) - known:
        # What an installed package registered when it was imported it wouldn't register again.
        package = str(registry[env_id].entry_point).partition(":")[0].partition(".")[0]
        installed = package != "gymnasium" and getattr(sys.modules.get(package), "__file__", None)
        if not installed or installed.startswith(str(tmp_path)):
            del registry[env_id]
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
