"""Resets and steps of environments that may not keep to Gymnasium's API, with the way out for those that don't."""

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from rlhfblender_core.errors import EnvironmentNotUsableError, one_line

_MIGRATION = "https://gymnasium.farama.org/introduction/migration_guide"


class NeverWorksError(EnvironmentNotUsableError):
    """No episode of the environment can ever be made, whatever the actions."""


def checked_reset(env: gym.Env[Any, Any], env_id: str, seed: int) -> Any:
    """The first observation.

    Args:
        env: not yet reset.
        env_id: for messages.
        seed: of the episode.

    Raises:
        NeverWorksError: ``reset`` takes no seed or no options, or returns no info.
    """
    returned = _Returned(env, "reset")
    try:
        result: Any = env.reset(seed=seed)
    except Exception as error:
        if (lacked := _lacked(env, error)) is not None:
            raise _old_api(env_id, f"its reset() takes no {lacked}") from error
        if returned.is_known and not _is_pair(returned.value):
            raise _old_api(env_id, "its reset() returns no info beside the observation") from error
        raise
    if not _is_pair(result):
        raise _old_api(env_id, "its reset() returns no info beside the observation")
    return result[0]


def checked_step(env: gym.Env[Any, Any], env_id: str, action: Any) -> tuple[Any, Any, Any, Any, Any]:
    """What a step brings: observation, reward, terminated, truncated, info.

    Args:
        env: reset.
        env_id: for messages.
        action: to take.

    Raises:
        NeverWorksError: ``step`` returns something else than five values with one reward.
    """
    returned = _Returned(env, "step")
    try:
        result: Any = env.step(action)
    except NotImplementedError as error:
        raise NeverWorksError(f"{env_id} has no step(): {one_line(error):.200}. Write it.") from error
    except Exception as error:
        if returned.is_known:
            _check_step(returned.value, env_id)
            _check_reward(returned.value[1], env_id)  # a wrapper that adds rewards up may have stumbled over it
        del error
        raise
    _check_step(result, env_id)
    _check_reward(result[1], env_id)
    _check_ends(result, env_id)
    observation, reward, terminated, truncated, info = result
    return observation, reward, terminated, truncated, info


def _check_step(result: Any, env_id: str) -> None:
    count = len(result) if isinstance(result, tuple) else 1
    if count == 5:  # noqa: PLR2004 (observation, reward, terminated, truncated, info)
        return
    if count == 4:  # noqa: PLR2004 (observation, reward, done, info)
        raise _old_api(env_id, "its step() returns four values")
    raise NeverWorksError(
        f"{env_id}: its step() returns {f'{count} values' if isinstance(result, tuple) else type(result).__name__}, "
        "not the five (observation, reward, terminated, truncated, info). Correct its step()."
    )


def _check_reward(reward: Any, env_id: str) -> None:
    try:
        size = np.asarray(reward).size
    except ValueError:  # ragged lists
        size = 0
    if size == 1 and np.asarray(reward).dtype.kind not in "biuf" and not isinstance(reward, Mapping):
        raise NeverWorksError(
            f"{env_id}: its step() returns the reward {reward!r:.60}, which is no number. Correct it."
        )
    if isinstance(reward, Mapping) or size != 1:
        raise NeverWorksError(
            f"{env_id} rewards with {size if size > 1 else 'several'} numbers, episodes have one. Weigh them in an "
            "entry point of your own (--env-gym-entrypoint): a function that returns "
            "mo_gymnasium.wrappers.LinearReward(env, weight=…)."
        )


def as_flag(name: str, end: Any) -> bool:
    """What a step says of its episode's end as Python's flag; numbers, and arrays with one, are taken for it.

    Args:
        name: ``terminated`` or ``truncated``, for the message.
        end: as ``step`` returned it.

    Raises:
        TypeError: it is something else, a text such as "False" for instance, which Python takes for true.
    """
    if isinstance(end, bool):  # the usual case, at every step
        return end
    try:
        array = np.asarray(end)
    except ValueError:  # ragged lists
        array = np.empty(0)
    if array.size == 1 and array.dtype.kind in "biuf" and not np.isnan(array).any():
        return bool(array.item())
    raise TypeError(f"step() returned {name} {end!r:.60}, which is neither True nor False")


def _check_ends(result: Any, env_id: str) -> None:
    for name, end in zip(("terminated", "truncated"), result[2:4], strict=True):
        try:
            as_flag(name, end)
        except TypeError as error:
            raise NeverWorksError(
                f"{env_id}: its {error}. It has to return (observation, reward, terminated, truncated, info)."
            ) from error


def _old_api(env_id: str, what: str) -> NeverWorksError:
    return NeverWorksError(
        f"{env_id} has the API of the old 'gym': {what}. Let reset(seed=…, options=…) return (observation, info) and "
        f"step() (observation, reward, terminated, truncated, info), see {_MIGRATION}, or use a newer version of it."
    )


def _lacked(env: gym.Env[Any, Any], error: Exception) -> str | None:
    """Which of its arguments the environment's ``reset`` doesn't take; None for none."""
    if not isinstance(error, TypeError) or "unexpected keyword argument" not in str(error):
        return None
    parameters = inspect.signature(type(env.unwrapped).reset).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return None
    names = {p.name for p in parameters}
    return next((name for name in ("seed", "options") if name not in names), None)


def _is_pair(result: Any) -> bool:
    return isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)  # noqa: PLR2004


class _Returned:
    """What the environment's own method returned last: wrappers fail at what they don't expect before it gets out."""

    def __init__(self, env: gym.Env[Any, Any], name: str) -> None:
        self.is_known = False
        self.value: Any = None
        own = getattr(env.unwrapped, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.value = own(*args, **kwargs)
            self.is_known = True
            return self.value

        try:
            setattr(env.unwrapped, name, noted)
        except AttributeError:  # with slots: nothing is known then
            return
