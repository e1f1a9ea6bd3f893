"""Image wrappers of gym's time, with the arithmetic that agents of that time were trained on.

Gymnasium's successors take other arguments, and its grey has other weights than OpenCV's.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlhfblender_core.errors import SpacesDifferError

Env = gym.Env[Any, Any]
Image = npt.NDArray[np.uint8]


class ResizeObservation(gym.ObservationWrapper[Image, Any, Image]):
    """Images of another height and width, by OpenCV's area interpolation.

    Args:
        env: an environment with image observations, (height, width, channels), uint8.
        shape: the new height and width, or both as one number.
    """

    def __init__(self, env: Env, shape: int | tuple[int, int] | list[int]) -> None:
        super().__init__(env)
        _check_image(env, "ResizeObservation")
        height, width = (shape, shape) if isinstance(shape, int) else shape
        self._size = (int(width), int(height))
        channels = (env.observation_space.shape or ())[2:]
        self.observation_space = spaces.Box(0, 255, (int(height), int(width), *channels), np.uint8)

    def observation(self, observation: Image) -> Image:
        """The resized image."""
        import cv2

        resized = cv2.resize(observation, self._size, interpolation=cv2.INTER_AREA)
        # OpenCV drops a single channel.
        return np.asarray(resized, np.uint8).reshape(self.observation_space.shape or ())


class GrayScaleObservation(gym.ObservationWrapper[Image, Any, Image]):
    """Grey images by OpenCV's weights.

    Args:
        env: an environment with RGB observations, (height, width, 3), uint8.
        keep_dim: keep the last dimension, of size 1.
    """

    def __init__(self, env: Env, keep_dim: bool = False) -> None:  # noqa: FBT001, FBT002 - gym's signature
        super().__init__(env)
        _check_image(env, "GrayScaleObservation")
        self._keep_dim = keep_dim
        sides = (env.observation_space.shape or ())[:2]
        self.observation_space = spaces.Box(0, 255, (*sides, 1) if keep_dim else sides, np.uint8)

    def observation(self, observation: Image) -> Image:
        """The grey image."""
        import cv2

        grey: Image = np.asarray(cv2.cvtColor(observation, cv2.COLOR_RGB2GRAY), np.uint8)
        return grey[..., None] if self._keep_dim else grey


def _check_image(env: Env, name: str) -> None:
    space = env.observation_space
    if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3) or space.dtype != np.uint8:
        raise SpacesDifferError(f"{name} needs image observations, the environment has {space}.")
