"""What all policies from checkpoints share: observations in, actions out, seeds. Each family adds its forward pass.

Importing this module imports torch, so only :mod:`rlhfblender_core.checkpoints.load` does, when a checkpoint is loaded.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces

from rlhfblender_core.policies.observations import ObservationPipeline
from rlhfblender_core.policies.protocol import PolicyStep, UncertaintyKind, derived_seed

#: Streams of :func:`derived_seed`; the random policy has 1.
_TORCH_STREAM, _NUMPY_STREAM = 2, 3

Floats = npt.NDArray[np.float32]
#: Lowest and highest values of a Box.
Bounds = tuple[npt.NDArray[Any], npt.NDArray[Any]]
#: A batch of one observation: a tensor, or one per key.
Observation = Any


class CheckpointPolicy(ABC):
    """A Stable-Baselines3 policy as a :class:`~rlhfblender_core.policies.protocol.Policy`.

    Sampling uses torch's global generator, which :meth:`reset` seeds: torch's distributions accept no other, and a
    process runs one episode at a time.

    Args:
        network: Stable-Baselines3's policy, in evaluation mode.
        pipeline: makes the policy's observations of the environment's.
        action_space: the environment's.
        deterministic: take the most likely action instead of sampling.
        bounds: lowest and highest actions of the space that it was trained in, where they are others.

    Attributes:
        begins_life: says whether the observation begins what was an episode in training, though none here; or None.
    """

    uncertainty_kind: UncertaintyKind = UncertaintyKind.NONE

    def __init__(
        self,
        network: Any,
        pipeline: ObservationPipeline,
        action_space: spaces.Space[Any],
        *,
        deterministic: bool,
        bounds: Bounds | None = None,
    ) -> None:
        self.begins_life: Callable[[], bool] | None = None
        self._bounds = bounds
        self.network = network
        self._pipeline = pipeline
        self._action_space = action_space
        self._deterministic = deterministic
        self._random = np.random.default_rng(0)
        # One for all decisions: to make it costs as much as three operators.
        self._without_autograd = torch.inference_mode()

    def reset(self, seed: int) -> None:
        """Seeds all sampling with numbers that derive from ``seed`` alone, and clears what was remembered."""
        # The processor's generator alone: torch.manual_seed looks for all kinds of devices, and takes a traceback.
        torch.default_generator.manual_seed(derived_seed(seed, _TORCH_STREAM))
        self._random = np.random.default_rng(derived_seed(seed, _NUMPY_STREAM))
        self._forget()
        with self._without_autograd:
            self._start()

    def act(self, observation: Any) -> PolicyStep:
        """One forward pass, without autograd: the action and all that is known about it."""
        if self.begins_life is not None and self.begins_life():
            self._forget()
        seen = self._pipeline(observation)
        with self._without_autograd:
            return self._decide(_batched(seen))

    def _forget(self) -> None:
        """Clears what was remembered of the observations before."""
        self._pipeline.reset()

    @abstractmethod
    def _start(self) -> None:
        """What a family does at the start of an episode, after seeding.

        Operators are found here: whoever wants to see what a layer is given has hooked it meanwhile.
        """

    @abstractmethod
    def _decide(self, observation: Observation) -> PolicyStep:
        """The family's forward pass for a batch of one."""

    def _environment_action(self, action: npt.NDArray[Any]) -> Any:
        """What the environment gets for a policy's action: unscaled or clipped, with the space's shape and dtype.

        Stable-Baselines3 counts choices from 0, whatever the space's ``start``: an agent that learned in such a space
        learned behind a shift. Those that learned without one are refused before
        (:func:`rlhfblender_core.checkpoints.match.check_spaces`).
        """
        space = self._action_space
        values = action.reshape(space.shape or ())
        if isinstance(space, spaces.Box):
            low, high = self._bounds or (space.low, space.high)
            values = low + 0.5 * (values + 1.0) * (high - low) if self.network.squash_output else values
            values = values.clip(low, high) if self._bounds or not self.network.squash_output else values
            if self._bounds:
                values = values.clip(space.low, space.high)
            # Stable-Baselines3 gives fractions where an environment wants whole numbers, in training too.
            return values.astype(space.dtype, copy=False) if space.dtype.kind == "f" else values
        if isinstance(space, spaces.Discrete):
            return space.dtype.type(values + space.start)
        shifted = values + space.start if isinstance(space, spaces.MultiDiscrete) else values
        return shifted.astype(space.dtype)


def _batched(observation: Any) -> Observation:
    """A batch of one as tensors."""
    if isinstance(observation, dict):
        return {key: torch.from_numpy(value[None]) for key, value in observation.items()}
    return torch.from_numpy(observation[None])


def floats(tensor: torch.Tensor) -> Floats:
    """A tensor's numbers as a flat float32 array of their own."""
    return np.array(tensor.reshape(-1).numpy(), dtype=np.float32)
