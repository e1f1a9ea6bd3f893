"""What a checkpoint's policy sees of an observation: normalised, stacked and transposed as in its training.

None of it changes the environment, and recorded observations are taken before it. Never imports torch. The order is
RL Zoo's: VecNormalize, VecFrameStack, VecTransposeImage.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from rlhfblender_core.errors import SpacesDifferError
from rlhfblender_core.untrusted.spaces import SpaceInfo
from rlhfblender_core.untrusted.vecnormalize import Moments, ObservationStatistics

_IMAGE_SIDES = 3
_WHITE = 255
_GOAL = ("observation", "desired_goal")


class ObservationPipeline:
    """Turns the environment's observations into the policy's.

    A policy puts the parts of a Dict side by side in the order of the space it was trained on, which may be another
    than the environment's; choices it counts from 0.

    Args:
        space: the (wrapped) environment's observation space.
        statistics: of VecNormalize, None for none.
        frame_stack: number of observations to stack, None for none.
        trained: what the policy was trained on, as its checkpoint says; None where that isn't known.
        joins_goal: put ``observation`` and ``desired_goal`` of a Dict into one row, as the class HER of
            Stable-Baselines3 1.0 did.

    Attributes:
        space: what comes out.

    Raises:
        SpacesDifferError: the statistics don't belong to this space, or it can't be stacked.
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        statistics: ObservationStatistics | None,
        frame_stack: int | None,
        trained: SpaceInfo | None = None,
        *,
        joins_goal: bool = False,
    ) -> None:
        self._joins_goal = joins_goal and isinstance(space, spaces.Dict) and space.spaces.keys() >= set(_GOAL)
        self._parts: dict[str, _Part] | None = None
        self._part: _Part | None = None
        if isinstance(space, spaces.Dict):
            held = {} if statistics is None else statistics.moments
            missing = sorted(str(key) for key in held if key not in space.spaces)
            if missing:
                raise SpacesDifferError(
                    f"The checkpoint's VecNormalize file has statistics of {missing[0]!r}, the environment's "
                    f"observations have {', '.join(space.spaces)}. Use the environment it was trained in."
                )
            known = {} if trained is None else dict(trained.parts)
            keys = list(known) if known.keys() == space.spaces.keys() else list(space.spaces)
            self._parts = {key: _Part(space[key], key, statistics, frame_stack, known.get(key)) for key in keys}
            # As pairs: the keys of a mapping would be sorted.
            self.space: spaces.Space[Any] = spaces.Dict([(key, part.space) for key, part in self._parts.items()])
            if self._joins_goal:
                self.space = _joined_space([self._parts[key].space for key in _GOAL])
        else:
            self._part = _Part(space, None, statistics, frame_stack, trained)
            self.space = self._part.space

    def reset(self) -> None:
        """Forgets stacked observations, at the start of an episode."""
        for part in self._parts.values() if self._parts is not None else [self._part]:
            if part is not None:
                part.reset()

    def __call__(self, observation: Any) -> npt.NDArray[Any] | dict[str, npt.NDArray[Any]]:
        """The policy's observation, without a batch dimension; never shares memory with what was given."""
        if self._parts is None:
            assert self._part is not None  # noqa: S101 - one of the two is set
            return self._part(observation)
        if self._joins_goal:
            return np.concatenate([self._parts[key](observation[key]).reshape(-1) for key in _GOAL])
        return {key: part(observation[key]) for key, part in self._parts.items()}


class _Part:
    """One array of an observation."""

    def __init__(
        self,
        space: spaces.Space[Any],
        key: str | None,
        statistics: ObservationStatistics | None,
        frame_stack: int | None,
        trained: SpaceInfo | None,
    ) -> None:
        self._key = key
        self._dtype = space.dtype
        self._shape = space.shape or ()
        self._start = _start_to_take_off(space, trained)
        if self._start is not None:
            space = _from_zero(space)
        moments = None if statistics is None else statistics.moments.get(key)
        self._statistics = None if moments is None else statistics
        # Stacked before it was normalised, if the statistics are of that shape: VecNormalize(VecFrameStack(env)).
        self._stack_first = moments is not None and _fits_stacked(space, moments, frame_stack)
        if self._stack_first:
            space = self._stacking(space, frame_stack, trained)
        if moments is not None:
            space = _normalised_space(space, moments, statistics, trained)
        if not self._stack_first:
            space = self._stacking(space, frame_stack, trained)
        self._transposed = _is_image(space) and not _channels_first(space)
        self.space = _transposed(space) if self._transposed else space

    def _stacking(
        self, space: spaces.Space[Any], frame_stack: int | None, trained: SpaceInfo | None
    ) -> spaces.Space[Any]:
        self._stack: _Stack | None = None
        if frame_stack is None:
            return space
        if not isinstance(space, spaces.Box) or not space.shape:
            raise SpacesDifferError(
                f"The checkpoint was trained on {frame_stack} stacked frames, but observations of {space} can't be "
                "stacked. Use the environment it was trained in, or --env-kwargs frame_stack:0."
            )
        self._stack = _Stack(space, frame_stack)
        other = _Stack(space, frame_stack, axis=0)  # VecFrameStack(channels_order="first")
        shapes = [_shape_seen(stack.space) for stack in (self._stack, other)]
        if trained is not None and trained.shape == shapes[1] != shapes[0]:
            self._stack = other
        return self._stack.space

    def reset(self) -> None:
        if self._stack is not None:
            self._stack.clear()

    def __call__(self, observation: Any) -> npt.NDArray[Any]:
        # A copy with the space's dtype, as vectorised environments make one.
        array = np.array(observation, dtype=self._dtype)
        if array.shape != self._shape:
            array = array.reshape(self._shape)
        if self._start is not None:
            array = array - self._start
        if self._stack is not None and self._stack_first:
            array = self._stack.push(array)
        if self._statistics is not None:
            array = self._statistics.normalised(self._key, array)
        if self._stack is not None and not self._stack_first:
            array = self._stack.push(array)
        return np.ascontiguousarray(array.transpose(2, 0, 1)) if self._transposed else array


class _Stack:
    """The last observations side by side, zeros before the first; the newest comes last."""

    def __init__(self, space: spaces.Box, frames: int, axis: int | None = None) -> None:
        default = 0 if _is_image(space) and _channels_first(space) else -1
        self._axis = default if axis is None else axis
        self._side = space.shape[self._axis]
        self.space = spaces.Box(
            low=np.repeat(space.low, frames, axis=self._axis),
            high=np.repeat(space.high, frames, axis=self._axis),
            dtype=space.dtype.type,
        )
        self._held = np.zeros(self.space.shape, self.space.dtype)

    def clear(self) -> None:
        self._held[...] = 0

    def push(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self._held = np.roll(self._held, -self._side, axis=self._axis)
        if self._axis == 0:
            self._held[-self._side :] = array
        else:
            self._held[..., -self._side :] = array
        return self._held.copy()


def _normalised_space(
    space: spaces.Space[Any], moments: Moments, statistics: ObservationStatistics | None, trained: SpaceInfo | None
) -> spaces.Space[Any]:
    if not isinstance(space, spaces.Box) or space.shape != moments.mean.shape or statistics is None:
        raise SpacesDifferError(
            f"The checkpoint's VecNormalize file has statistics of shape {moments.mean.shape}, observations are "
            f"{space}. Use the environment it was trained in."
        )
    # Older Stable-Baselines3 left the space of normalised images as it was: its policies divide them by 255, too.
    if not _is_image(space) or (trained is not None and trained.is_image):
        return space
    return spaces.Box(-statistics.clip, statistics.clip, space.shape, np.float32)


def _start_to_take_off(space: spaces.Space[Any], trained: SpaceInfo | None) -> Any:
    """What choices begin with, where the policy learned them from 0 on; None where it saw them as they are."""
    if not isinstance(space, spaces.Discrete | spaces.MultiDiscrete) or not np.any(space.start):
        return None
    return None if trained is not None and trained.starts else space.start


def _from_zero(space: spaces.Space[Any]) -> spaces.Space[Any]:
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec, dtype=space.dtype.type)
    return spaces.Discrete(space.n) if isinstance(space, spaces.Discrete) else space


def _joined_space(parts: list[spaces.Space[Any]]) -> spaces.Space[Any]:
    if all(isinstance(part, spaces.Discrete) for part in parts):
        return spaces.MultiDiscrete([part.n for part in parts if isinstance(part, spaces.Discrete)])
    if all(isinstance(part, spaces.MultiBinary) for part in parts):
        return spaces.MultiBinary(sum(int(np.prod(part.shape or ())) for part in parts))
    boxes = [part for part in parts if isinstance(part, spaces.Box)]
    if len(boxes) < len(parts):
        raise SpacesDifferError(
            f"The checkpoint was trained by the class HER of Stable-Baselines3 1.0, on observation and desired_goal in "
            f"one row, which {' and '.join(map(str, parts))} have none of. Use the environment it was trained in."
        )
    low, high = (np.concatenate([getattr(box, side).ravel() for box in boxes]) for side in ("low", "high"))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32))


def _fits_stacked(space: spaces.Space[Any], moments: Moments, frames: int | None) -> bool:
    if frames is None or not isinstance(space, spaces.Box) or space.shape == moments.mean.shape:
        return False
    return _Stack(space, frames).space.shape == moments.mean.shape


def _is_image(space: spaces.Space[Any]) -> bool:
    """Stable-Baselines3's rule: three sides, uint8, bounds 0 and 255."""
    if not isinstance(space, spaces.Box) or len(space.shape) != _IMAGE_SIDES or space.dtype != np.uint8:
        return False
    return bool((space.low == 0).all() and (space.high == _WHITE).all())


def _shape_seen(space: spaces.Box) -> tuple[int, ...]:
    return (_transposed(space) if _is_image(space) and not _channels_first(space) else space).shape


def _channels_first(space: spaces.Space[Any]) -> bool:
    """Stable-Baselines3's rule: the smallest side is that of the channels."""
    return int(np.argmin(space.shape or ())) == 0


def _transposed(space: spaces.Space[Any]) -> spaces.Box:
    height, width, channels = space.shape or (0, 0, 0)
    return spaces.Box(0, _WHITE, (channels, height, width), np.uint8)
