"""Trying an environment out in throw-away environments: what can never work, and whether a seed decides what happens.

No episode is made in them. They are made one after the other, because some environments hold a port or a licence.
"""

import json
import time
from contextlib import suppress
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np

from rlhfblender_core.environments import (
    EnvironmentSpec,
    close_environment,
    flatten_observation,
    free_closed_environments,
    make_environment,
)
from rlhfblender_core.environments.api import NeverWorksError, checked_reset, checked_step
from rlhfblender_core.environments.contained import contained, is_interrupt
from rlhfblender_core.environments.quiet import quiet_output
from rlhfblender_core.errors import EnvironmentNotUsableError
from rlhfblender_core.policies.masked_random import MaskedRandomPolicy
from rlhfblender_core.policies.protocol import Policy
from rlhfblender_core.policies.random_policy import RandomPolicy
from rlhfblender_core.rollout.seeding import SeededGlobals, is_torch_loaded, seed_spaces
from rlhfblender_core.wrappers import action_mask_source

#: Few, because highway-env's take up to 150 ms; where they are cheap, as many more as take so many seconds:
#: what a class or a module keeps may change with the end of an episode only.
_STEPS, _MORE_S = 3, 0.02
_SEED = 0


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
    second = _first_steps(spec, render=render, moments=len(first))
    return None if second is None else _same(first, second)


def forget_trials() -> None:
    """Has environments tried out anew, though they were in this process: their code may have changed."""
    _tried_out.cache_clear()


def _first_steps(spec: EnvironmentSpec, *, render: bool, moments: int | None = None) -> list[Any] | None:
    """What the environment gives at the start of an episode; None where it fails, which is an episode's own matter.

    Args:
        spec: the environment.
        render: whether it is made to draw frames.
        moments: how many observations to make; None for as many as time allows.
    """
    given = _played_in_another(spec, render=render, moments=moments)
    free_closed_environments()
    return given


def _played_in_another(spec: EnvironmentSpec, *, render: bool, moments: int | None) -> list[Any] | None:
    with contained(), quiet_output(), SeededGlobals(_SEED):
        env = make_environment(spec, render=render)
        given: list[Any] = []
        try:
            seed_spaces(env, _SEED)
            _play(env, spec.env_id, given, moments)
        except BaseException as error:  # somebody's environment, and the actions are random
            if len(given) > _STEPS and not is_interrupt(error):
                return given
            if isinstance(error, NeverWorksError) or is_interrupt(error):
                raise
            return None
        finally:
            close_environment(env)
        return given


def _play(env: gym.Env[Any, Any], env_id: str, given: list[Any], moments: int | None) -> None:
    """Fills ``given`` until the episode ends, the number of moments is reached or the time is up."""
    policy = _policy(env)
    policy.reset(_SEED)
    started = time.perf_counter()
    given.append(_copied(env, checked_reset(env, env_id, _SEED)))
    while len(given) <= _STEPS or (
        time.perf_counter() - started < _MORE_S if moments is None else len(given) < moments
    ):
        observation, reward, terminated, truncated = checked_step(env, env_id, policy.act(None).action)
        given.append((_copied(env, observation), float(np.asarray(reward).item()), bool(terminated), bool(truncated)))
        if terminated or truncated:
            break


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


def _same(one: Any, other: Any) -> bool:
    """Whether two runs gave the same; NaN equals NaN."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    first, second = np.asarray(one), np.asarray(other)
    return np.array_equal(first, second, equal_nan=first.dtype.kind in "fc")
