"""An environment of any spaces whose contents are known: what is observed at step t is :func:`observation`'s."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "float64": spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    "int32": spaces.Box(-5, 5, (4,), np.int32),
    "scalar": spaces.Box(-1.0, 1.0, (), np.float32),
    "picture": spaces.Box(0, 255, (9, 11, 3), np.uint8),
    "channels first": spaces.Box(0, 255, (1, 9, 11), np.uint8),
    "discrete": spaces.Discrete(5, start=-2),
    "multidiscrete": spaces.MultiDiscrete([3, 7]),
    "multibinary": spaces.MultiBinary((2, 3)),
    "text": spaces.Text(12),
    "dict": spaces.Dict(
        {
            "z": spaces.Discrete(3, start=1),
            "a/b": spaces.Box(0, 255, (9, 11, 3), np.uint8),
            "inner": spaces.Dict({"deep": spaces.Tuple([spaces.MultiBinary(2), spaces.Box(-1, 1, (1,), np.float64)])}),
            "word": spaces.Text(6),
        }
    ),
    "tuple": spaces.Tuple([spaces.Box(-1, 1, (2,), np.float32), spaces.Dict({"x": spaces.MultiDiscrete([2, 2])})]),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(4, start=-1),
    "multidiscrete": spaces.MultiDiscrete([3, 2]),
    "multibinary": spaces.MultiBinary(3),
    "float64": spaces.Box(-2.0, 2.0, (2,), np.float64),
    "matrix": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
    "int64": spaces.Box(-3, 3, (2,), np.int64),
}


def observation(name: str, step: int) -> Any:
    """What is observed after so many steps."""
    space = OBSERVATIONS[name]
    space.seed(step)
    return space.sample()


class Spaced(gymnasium.Env[Any, Any]):
    """Gives :func:`observation`; the reward of step t is t + 0.25, and the picture at step t has brightness 20 t."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (as Gymnasium wants it)

    def __init__(
        self, observed: str, acted: str, length: int = 3, *, truncates: bool = False, render_mode: str | None = None
    ) -> None:
        self.observation_space, self.action_space = OBSERVATIONS[observed], ACTIONS[acted]
        self.render_mode = render_mode
        self._observed, self._length, self._truncates, self._step = observed, length, truncates, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return observation(self._observed, 0), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        reward = self._step + 0.25
        self._step += 1
        ends = self._step >= self._length
        info = {"step": self._step, "said": repr(action)}
        return (
            observation(self._observed, self._step),
            reward,
            ends and not self._truncates,
            ends and self._truncates,
            info,
        )

    def render(self) -> Any:
        return np.full((24, 32, 3), 20 * self._step, np.uint8)
