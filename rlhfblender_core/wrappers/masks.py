"""Which actions an environment allows at the moment: the method that says so, and what it has to return."""

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlhfblender_core.errors import EnvironmentNotUsableError

Env = gym.Env[Any, Any]
Mask = NDArray[np.bool_]
#: Gives the mask of allowed actions at this moment, flat, True for allowed.
ActionMasks = Callable[[], Mask]

#: What sb3-contrib asks, where nothing else is named.
MASK_METHOD = "action_masks"
#: As given with ``--action-mask-method``: all actions are allowed, whatever the environment says.
NO_MASK = "none"
_FLAG = "--action-mask-method"


class ActionMasker(gym.Wrapper[Any, Any, Any, Any]):
    """sb3-contrib's wrapper of that name: another method of the environment says which actions are allowed.

    Args:
        env: with discrete actions.
        action_mask_fn: the method's name; it is called with the environment, as sb3-contrib does.
    """

    def __init__(self, env: Env, action_mask_fn: str) -> None:
        super().__init__(env)
        self._method = action_mask_fn

    def action_masks(self) -> Any:
        """What the method says."""
        return _method(self.env, self._method)(self.env)


def action_mask_source(env: Env, method: str | None = None) -> ActionMasks | None:
    """What gives the mask of the actions that the environment, or a wrapper around it, allows now.

    Args:
        env: the environment as the agent acts in it.
        method: its method; None for ``action_masks`` where there is one; ``none`` for no mask.

    Returns:
        The source, None for no mask. It raises EnvironmentNotUsableError where the method returns something else.

    Raises:
        EnvironmentNotUsableError: there is no such method, or masks can't say anything about these actions.
    """
    if method == NO_MASK:
        return None
    counts = mask_counts(env.action_space)
    if method is None and (counts is None or not _has_method(env, MASK_METHOD)):
        return None
    if counts is None:
        raise EnvironmentNotUsableError(
            f"Masks need discrete actions, the environment has {env.action_space!s:.80}. Leave {_FLAG} out."
        )
    name = method or MASK_METHOD
    _without_arguments(env, name)
    # Looked up at each step: on a stage, another environment stands with every episode.
    return lambda: _checked(_method(env, name)(), sum(counts), name)


def mask_counts(space: spaces.Space[Any]) -> tuple[int, ...] | None:
    """Flags that sb3-contrib's masks have for each choice: n, one n per dimension, or two per bit (0, 1).

    None for actions that aren't discrete.
    """
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(n) for n in space.nvec.ravel())
    return (2,) * int(np.prod(space.shape)) if isinstance(space, spaces.MultiBinary) else None


def mask_methods(env: Env) -> tuple[str, ...]:
    """The environment's own methods whose names speak of masks."""
    own = env.unwrapped
    names = (name for name in dir(own) if "mask" in name.lower() and not name.startswith("_"))
    # Properties are somebody's code, and no methods.
    return tuple(name for name in names if callable(getattr(type(own), name, None) or vars(own).get(name)))


def mask_advice(env: Env) -> str:
    """How to name the method, with those of the environment whose names speak of masks."""
    methods = [name for name in mask_methods(env) if name != MASK_METHOD]
    if not methods:
        return f"Name the method that does, e.g. {_FLAG} valid_action_mask, or {_FLAG} {NO_MASK} for all actions."
    return f"It has {', '.join(methods[:3])}: give {_FLAG} {methods[0]}, or {_FLAG} {NO_MASK} for all actions."


def _has_method(env: Env, name: str) -> bool:
    return env.has_wrapper_attr(name) and callable(env.get_wrapper_attr(name))


def _method(env: Env, name: str) -> Callable[..., Any]:
    if not _has_method(env, name):
        raise EnvironmentNotUsableError(
            f"The environment has no method {name}() that says which actions are allowed. {mask_advice(env)}"
        )
    method: Callable[..., Any] = env.get_wrapper_attr(name)
    return method


def _without_arguments(env: Env, name: str) -> None:
    method = _method(env, name)
    try:
        inspect.signature(method).bind()
    except TypeError as error:
        raise EnvironmentNotUsableError(
            f"{name}() can't be asked which actions are allowed: {error}. Give an entry point of your own "
            "(--env-gym-entrypoint) that returns sb3_contrib.common.wrappers.ActionMasker(env, function), or "
            f"{_FLAG} {NO_MASK} for all actions."
        ) from error
    except ValueError:  # written in C, without a signature
        return


def _checked(mask: Any, size: int, name: str) -> Mask:
    try:
        # One array for each choice, as MultiDiscrete.sample(mask=…) takes them, or all flags in one.
        parts = mask if isinstance(mask, tuple | list) else (mask,)
        flags = np.concatenate([np.asarray(part).reshape(-1) for part in parts]).astype(bool)
    except (ValueError, TypeError) as error:  # ragged, or no numbers
        raise EnvironmentNotUsableError(f"{name}() returned no mask but {mask!r:.60}.") from error
    if flags.size != size:
        raise EnvironmentNotUsableError(f"{name}() returned {flags.size} flags, the actions take {size}.")
    if not flags.any():
        raise EnvironmentNotUsableError(f"{name}() allows no action at all, though the episode goes on.")
    return flags
