"""Trying an environment out in throw-away environments: what can never work, and whether a seed decides what happens.

No episode is made in them. They are made one after the other, because some environments hold a port or a licence.
What a seed decides is the same in another process, and after other episodes.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np

from rlhfblender_core.dataset.infos import info_to_json
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
_SEED, _OTHER_SEED = 0, 1
#: So far the clock is put forward elsewhere: seeds may be the whole seconds of the time.
_AHEAD_S = 100_003.0
#: So many places of each size are taken in memory.
_TAKEN = 97

#: What an environment gave, moment by moment: a sha256 of each.
Moments = tuple[str, ...]


def try_out(spec: EnvironmentSpec, *, render: bool, elsewhere: Moments | None = None) -> bool | None:
    """Takes a few steps in an environment made for that, and compares with what another gave for the same seed.

    Args:
        spec: the environment.
        render: whether it is made to draw frames.
        elsewhere: what another process was given (:func:`tried_elsewhere`); None to make another one here.

    Returns:
        Whether both gave the same; None where an environment failed, which may be an episode's own.

    Raises:
        NeverWorksError: no episode of it can ever be made, with the way out.
        EnvironmentNotUsableError: it can't be made.
    """
    # A spec's hash leaves its keyword arguments out, and to its equality 1 is True.
    return _tried_out(spec, json.dumps(spec.to_json()), render, elsewhere)


@cache  # once per process
def _tried_out(spec: EnvironmentSpec, _text: str, render: bool, elsewhere: Moments | None) -> bool | None:  # noqa: FBT001 (a key of the cache)
    moments = None if elsewhere is None else len(elsewhere)
    had_torch = is_torch_loaded()
    first = _first_steps(spec, render=render, moments=moments)
    if is_torch_loaded() != had_torch:  # it was imported too late to be seeded
        first = _first_steps(spec, render=render, moments=moments)
    if first is None:
        return None
    second = elsewhere or _first_steps(spec, render=render, moments=len(first))
    return None if second is None else first == second


def tried_elsewhere(spec: EnvironmentSpec, *, render: bool) -> Moments | None:
    """What the environment gives in a process that has another number, another clock, memory and past.

    Seeds that are taken from these, and what a module or a class keeps from one environment for the next, are the same
    for two environments of one process. To be called in a process that ends afterwards.

    Args:
        spec: the environment.
        render: whether it is made to draw frames.

    Returns:
        What it gave; None where it failed.

    Raises:
        NeverWorksError: no episode of it can ever be made, with the way out.
        EnvironmentNotUsableError: it can't be made.
    """
    with _clock_ahead():
        before = _first_steps(spec, render=render, seed=_OTHER_SEED)
        # Forked processes have the same free places in their memory: what comes gets other addresses.
        taken = [bytes(size) for size in range(0, 512, 16) for _ in range(_TAKEN)]
        given = None if before is None else _first_steps(spec, render=render)
        del taken
        return given


def forget_trials() -> None:
    """Has environments tried out anew, though they were in this process: their code may have changed."""
    _tried_out.cache_clear()


@contextmanager
def _clock_ahead() -> Iterator[None]:
    now = time.time
    time.time = lambda: now() + _AHEAD_S
    try:
        yield
    finally:
        time.time = now


def _first_steps(
    spec: EnvironmentSpec, *, render: bool, moments: int | None = None, seed: int = _SEED
) -> Moments | None:
    """What the environment gives at the start of an episode; None where it fails, which is an episode's own matter.

    Args:
        spec: the environment.
        render: whether it is made to draw frames.
        moments: how many observations to make; None for as many as time allows.
        seed: of the episode.
    """
    given = _played_in_another(spec, render=render, moments=moments, seed=seed)
    free_closed_environments()
    return None if given is None else tuple(given)


def _played_in_another(spec: EnvironmentSpec, *, render: bool, moments: int | None, seed: int) -> list[str] | None:
    with contained(), quiet_output(), SeededGlobals(seed):
        env = make_environment(spec, render=render)
        given: list[str] = []
        try:
            seed_spaces(env, seed)
            _play(env, spec.env_id, given, moments, seed)
        except BaseException as error:  # somebody's environment, and the actions are random
            if len(given) > _STEPS and not is_interrupt(error):
                return given
            if isinstance(error, NeverWorksError) or is_interrupt(error):
                raise
            return None
        finally:
            close_environment(env)
        return given


def _play(env: gym.Env[Any, Any], env_id: str, given: list[str], moments: int | None, seed: int) -> None:
    """Fills ``given`` until the episode ends, the number of moments is reached or the time is up."""
    policy = _policy(env)
    policy.reset(seed)
    started = time.perf_counter()
    given.append(_digest(env, checked_reset(env, env_id, seed), ()))
    while len(given) <= _STEPS or (
        time.perf_counter() - started < _MORE_S if moments is None else len(given) < moments
    ):
        # One, for MuJoCo without a graphics card takes 60 ms for it.
        frame = env.render() if env.render_mode is not None and len(given) == 1 else None
        observation, reward, *ends, info = checked_step(env, env_id, policy.act(None).action)
        ended = [bool(end) for end in ends]
        given.append(_digest(env, observation, (float(np.asarray(reward).item()), *ended, info_to_json(info), frame)))
        if any(ended):
            break


def _policy(env: gym.Env[Any, Any]) -> Policy:
    """Random actions, under the environment's mask where it has one: what isn't allowed may raise."""
    with suppress(EnvironmentNotUsableError):
        masks = action_mask_source(env)
        if masks is not None:
            return MaskedRandomPolicy(env.action_space, masks)
    return RandomPolicy(env.action_space)


def _digest(env: gym.Env[Any, Any], observation: Any, rest: tuple[Any, ...]) -> str:
    """Of what an episode records at a moment; NaN is NaN, however it is written."""
    digest = hashlib.sha256()
    columns = flatten_observation(env.observation_space, observation)
    for value in (*columns, *columns.values(), *rest):
        array = np.asarray(value)
        if array.dtype.kind in "fc":
            array = np.where(np.isnan(array), np.nan, array)
        content = repr(value).encode(errors="replace") if array.dtype.hasobject else array.tobytes()
        digest.update(f"{array.dtype} {array.shape} ".encode() + content)
    return digest.hexdigest()
