"""An episode played again from its seed and actions, exactly: observations and rewards are compared with the recorded.

:func:`replayed` is the one way to do that: states are taken on the way (:mod:`.replayed_states`), a user steps through
it in Python (:meth:`rlhfblender_core.reading.episode.Episode.replay`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.manifests import Manifest, PolicyRecord
from rlhfblender_core.environments import (
    EnvironmentSpec,
    Trust,
    close_environment,
    flatten_observation,
    free_closed_environments,
    make_environment,
)
from rlhfblender_core.environments.observations import ROOT
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.rollout.episode import RawRecorder
from rlhfblender_core.rollout.seeding import SeededGlobals, episode_seed, seed_spaces
from rlhfblender_core.untrusted.npz import Arrays
from rlhfblender_core.wrappers import WrapperSpec


@dataclass(frozen=True)
class Replay:
    """An episode to be played again.

    Attributes:
        environment: as it was made.
        wrappers: that were around it.
        run_seed: of its run.
        seed: what it was reset with.
        render: whether the environment can be asked for pictures.
    """

    environment: EnvironmentSpec
    wrappers: tuple[WrapperSpec, ...]
    run_seed: int
    seed: int
    render: bool = False


@dataclass(frozen=True)
class Moment:
    """A moment of an episode that is played again.

    Attributes:
        step: from 0; T is the end, after which nothing was done.
        env: what the agent acted in.
        recorder: in it, around the environment itself.
        expected: the recorded observation in columns, which the environment has just given.
    """

    step: int
    env: gym.Env[Any, Any]
    recorder: RawRecorder
    expected: dict[str, NDArray[Any]]


def replay_of(manifest: Manifest, trust: Trust, *, render: bool = False) -> Replay:
    """How the episode of a manifest is played again.

    Args:
        manifest: of the episode.
        trust: what manifests may name to make environments with.
        render: whether the environment shall be able to render.

    Raises:
        DataNotUsableError: its seed isn't known.
        EnvironmentNotTrustedError: its environment would be made with what only the manifest names.
    """
    if manifest.seed is None or manifest.run_seed is None:
        raise DataNotUsableError("it was made elsewhere, from a seed unknown here")
    spec = spec_of_manifest(manifest)
    trust.admit(spec)
    return Replay(spec, wrappers_of(manifest.policy), manifest.run_seed, manifest.seed, render)


def spec_of_manifest(manifest: Manifest) -> EnvironmentSpec:
    """How the environment of a manifest's episode was made."""
    made = manifest.environment
    return EnvironmentSpec(made.id, made.entry_point, made.additional_packages, made.kwargs, made.spec_kwargs)


def wrappers_of(policy: PolicyRecord) -> tuple[WrapperSpec, ...]:
    """The wrappers that were around an agent's environment, innermost first.

    Manifests of before keyword arguments were recorded count as if there were none.
    """
    return tuple(map(WrapperSpec, policy.wrappers, policy.wrapper_kwargs or ({},) * len(policy.wrappers)))


def replayed(replay: Replay, arrays: Arrays) -> Iterator[Moment]:
    """Plays the episode again: T+1 moments, before each action and after the last, in one environment.

    What is done between two moments doesn't meet the global random generators that the environment draws from.

    Args:
        replay: how.
        arrays: of its ``.npz``.

    Raises:
        DataNotUsableError: an observation or a reward isn't the recorded one.
        RequestError: the environment or a wrapper can't be made.
    """
    actions, rewards = arrays["actions"], arrays["rewards"]
    globally = SeededGlobals(replay.seed)
    with staged(replay) as (recorder, env):
        with globally:
            seed_spaces(env, replay.seed)
            env.reset(seed=replay.seed)
        for step, expected in enumerate(recorded_observations(arrays)):
            _check(step, recorder, expected)
            yield Moment(step, env, recorder, expected)
            if step < len(actions):
                with globally:
                    env.step(actions[step])
                if not np.array_equal(recorder.take_reward(), rewards[step], equal_nan=True):
                    raise _differs(step)


def recorded_observations(arrays: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    """The recorded observations in columns, row by row, the one that ended the episode last."""
    names = [name for name in arrays if name == ROOT or name.startswith(f"{ROOT}.")]
    for rows in zip(*(arrays.rows(name) for name in names), strict=True):
        yield dict(zip(names, rows, strict=True))
    if all(f"final_{name}" in arrays for name in names):  # of some imported ones it isn't known
        yield {name: arrays[f"final_{name}"] for name in names}


@contextmanager
def staged(replay: Replay) -> Iterator[tuple[RawRecorder, gym.Env[Any, Any]]]:
    """The episode's environment, not reset: the recorder, and what the agent acted in."""
    free_closed_environments()  # of earlier episodes
    with SeededGlobals(episode_seed(replay.run_seed, 0)):
        recorder = RawRecorder(make_environment(replay.environment, render=replay.render))
    try:
        yield recorder, recorder.wrapped_in(replay.wrappers)
    finally:
        close_environment(recorder)


def _check(step: int, recorder: RawRecorder, expected: dict[str, NDArray[Any]]) -> None:
    found = flatten_observation(recorder.observation_space, recorder.observation)
    for name, row in expected.items():
        if not np.array_equal(found[name], row, equal_nan=row.dtype.kind in "fc"):
            raise _differs(step)


def _differs(step: int) -> DataNotUsableError:
    return DataNotUsableError(f"played again, the episode differs at step {step}")
