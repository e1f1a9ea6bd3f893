"""Trying an environment out in throw-away environments: what can never work, and whether a seed decides what happens.

No episode is made in them. They are made one after the other, because some environments hold a port or a licence.
"""

import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np

from rlhfblender_core.environments import EnvironmentSpec, close_environment, flatten_observation, make_environment
from rlhfblender_core.environments.contained import contained, is_interrupt
from rlhfblender_core.environments.quiet import quiet_output
from rlhfblender_core.errors import EnvironmentNotUsableError, one_line
from rlhfblender_core.policies.masked_random import MaskedRandomPolicy
from rlhfblender_core.policies.protocol import Policy
from rlhfblender_core.policies.random_policy import RandomPolicy
from rlhfblender_core.rollout.seeding import is_torch_loaded, seed_spaces, seeded_globals
from rlhfblender_core.wrappers import action_mask_source

#: Few, because highway-env's take up to 150 ms.
_STEPS = 3
_SEED = 0
_MIGRATION = "https://gymnasium.farama.org/introduction/migration_guide"


class NeverWorksError(EnvironmentNotUsableError):
    """No episode of the environment can ever be made, whatever the actions."""


def try_out(spec: EnvironmentSpec, *, render: bool) -> bool | None:
    """Takes a few steps in two environments made for that, from the same seed.

    Args:
        spec: the environment.
        render: whether it is made to draw frames.

    Returns:
        Whether both gave the same; None where an environment failed, which may be an episode's own.

    Raises:
        NeverWorksError: no episode of it can ever be made, with the way out.
        EnvironmentNotUsableError: it can't be made.
    """
    # A spec's hash leaves its keyword arguments out, and to its equality 1 is True.
    return _tried_out(spec, json.dumps(spec.to_json()), render)


@cache  # once per process
def _tried_out(spec: EnvironmentSpec, _text: str, render: bool) -> bool | None:  # noqa: FBT001 (a key of the cache)
    had_torch = is_torch_loaded()
    first = _first_steps(spec, render=render)
    if is_torch_loaded() != had_torch:  # it was imported too late to be seeded
        first = _first_steps(spec, render=render)
    if first is None:
        return None
    second = _first_steps(spec, render=render)
    return None if second is None else _same(first, second)


def forget_trials() -> None:
    """Has environments tried out anew, though they were in this process: their code may have changed."""
    _tried_out.cache_clear()


def _first_steps(spec: EnvironmentSpec, *, render: bool) -> list[Any] | None:
    """What the environment gives at the start of an episode; None where it fails, which is an episode's own matter."""
    with contained(), quiet_output(), seeded_globals(_SEED):
        env = make_environment(spec, render=render)
        try:
            seed_spaces(env, _SEED)
            return _played(env, spec.env_id)
        except NeverWorksError:
            raise
        except BaseException as error:  # somebody's environment, and the actions are random
            if is_interrupt(error):
                raise
            return None
        finally:
            close_environment(env)


def _played(env: gym.Env[Any, Any], env_id: str) -> list[Any]:
    policy = _policy(env)
    policy.reset(_SEED)
    given: list[Any] = [_copied(env, _reset(env, env_id))]
    for _ in range(_STEPS):
        observation, reward, terminated, truncated = _step(env, env_id, policy.act(None).action)
        given.append((_copied(env, observation), float(np.asarray(reward).item()), bool(terminated), bool(truncated)))
        if terminated or truncated:
            break
    return given


def _policy(env: gym.Env[Any, Any]) -> Policy:
    """Random actions, under the environment's mask where it has one: what isn't allowed may raise."""
    with suppress(EnvironmentNotUsableError):
        masks = action_mask_source(env)
        if masks is not None:
            return MaskedRandomPolicy(env.action_space, masks)
    return RandomPolicy(env.action_space)


def _copied(env: gym.Env[Any, Any], observation: Any) -> dict[str, Any]:
    """The observation's columns; some environments return the same arrays again, changed."""
    columns = flatten_observation(env.observation_space, observation)
    return {name: np.array(column) for name, column in columns.items()}


def _reset(env: gym.Env[Any, Any], env_id: str) -> Any:
    returned = _Returned(env, "reset")
    try:
        result: Any = env.reset(seed=_SEED)
    except Exception as error:
        if _lacks_seed(env, error):
            raise _old_api(env_id, "its reset() takes no seed") from error
        if returned.is_known and not _is_pair(returned.value):
            raise _old_api(env_id, "its reset() returns no info beside the observation") from error
        raise
    if not _is_pair(result):
        raise _old_api(env_id, "its reset() returns no info beside the observation")
    return result[0]


def _step(env: gym.Env[Any, Any], env_id: str, action: Any) -> tuple[Any, Any, Any, Any]:
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
    observation, reward, terminated, truncated, _ = result
    return observation, reward, terminated, truncated


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
    if isinstance(reward, Mapping) or size != 1:
        raise NeverWorksError(
            f"{env_id} rewards with {size if size > 1 else 'several'} numbers, episodes have one. Weigh them in an "
            "entry point of your own (--env-gym-entrypoint): a function that returns "
            "mo_gymnasium.wrappers.LinearReward(env, weight=…)."
        )


def _old_api(env_id: str, what: str) -> NeverWorksError:
    return NeverWorksError(
        f"{env_id} has the API of the old 'gym': {what}. Let reset(seed=…, options=…) return (observation, info) and "
        f"step() (observation, reward, terminated, truncated, info), see {_MIGRATION}, or use a newer version of it."
    )


def _lacks_seed(env: gym.Env[Any, Any], error: Exception) -> bool:
    if not isinstance(error, TypeError) or "unexpected keyword argument" not in str(error):
        return False
    parameters = inspect.signature(env.unwrapped.reset).parameters.values()
    return not any(p.name == "seed" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


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


def _same(one: Any, other: Any) -> bool:
    """Whether two runs gave the same; NaN equals NaN."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    first, second = np.asarray(one), np.asarray(other)
    return np.array_equal(first, second, equal_nan=first.dtype.kind in "fc")
