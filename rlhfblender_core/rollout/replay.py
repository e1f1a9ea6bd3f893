"""An episode played again from its seed and actions, exactly, to take the environment's states on the way.

Runs in a worker process: it makes an environment. Every observation is compared with the recorded one.
"""

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.environments import EnvironmentSpec, close_environment, flatten_observation, make_environment
from rlhfblender_core.environments.contained import contained, is_interrupt
from rlhfblender_core.environments.observations import ROOT
from rlhfblender_core.environments.quiet import quiet_output
from rlhfblender_core.environments.states import StateTaker, put_back
from rlhfblender_core.errors import DataNotUsableError, RLHFBlenderError, one_line
from rlhfblender_core.rollout.episode import RawRecorder
from rlhfblender_core.rollout.seeding import episode_seed, seed_spaces, seeded_globals
from rlhfblender_core.untrusted.limits import MAX_STATES_BYTES
from rlhfblender_core.untrusted.npz import Arrays, open_arrays
from rlhfblender_core.wrappers import WrapperSpec, wrap_environment

#: RLHF-Blender's server resets its environment from this seed before it puts a state back.
_SERVER_SEED = 42
#: Steps taken from a state that was put back. Physics that is put back without its solver's guesses drifts apart later.
_PROOF_STEPS = 20
#: Of observations that are floats: the solver of MuJoCo starts from other guesses.
_TOLERANCE = 1e-5
#: Observations of more bytes are pictures, which the episode's arrays have already.
_MOST_OBSERVED = 4096


@dataclass(frozen=True)
class Replay:
    """An episode to be played again.

    Attributes:
        environment: as it was made.
        wrappers: that were around it.
        run_seed: of its run.
        seed: what it was reset with.
        arrays: its ``.npz``.
    """

    environment: EnvironmentSpec
    wrappers: tuple[WrapperSpec, ...]
    run_seed: int
    seed: int
    arrays: Path


@dataclass(frozen=True)
class ReplayedStates:
    """What came of it.

    Attributes:
        written: whether there is a file of states.
        proved: whether the states of the first, the middle and the last step go on as the episode did when they are put
            back.
        initial: the first state, pickled as RLHF-Blender's recorder does it; empty where there is none.
        obstacle: why not, in a few words; None where all is well.
    """

    written: bool
    proved: bool
    initial: bytes = b""
    obstacle: str | None = None


def write_states(replay: Replay, file: Path) -> ReplayedStates:
    """Plays the episode again and writes its states, (T, 1): each ``{"state", "observation", "elapsed_steps"}``.

    Args:
        replay: the episode.
        file: to be written, ``.npy``.
    """
    try:
        with contained(), quiet_output():
            states, recorded = _taken(replay)
            proved = _is_proved(replay, states, recorded)
            if not (proved or recorded.is_known):
                return ReplayedStates(written=False, proved=False, obstacle="its state can't be taken and put back")
            return _written(states, file, proved=proved)
    except BaseException as error:  # somebody's environment
        if is_interrupt(error):
            raise
        reason = one_line(error) if isinstance(error, RLHFBlenderError) else f"the environment raised {one_line(error)}"
        return ReplayedStates(written=False, proved=False, obstacle=f"{reason:.200}")


def _written(states: NDArray[np.object_], file: Path, *, proved: bool) -> ReplayedStates:
    try:
        initial = pickle.dumps([states[0, 0]])
    except Exception as error:
        raise DataNotUsableError(f"its state can't be stored: {one_line(error)}") from error
    if len(initial) * len(states) > MAX_STATES_BYTES:
        raise DataNotUsableError("its states are too large to be handed over")
    with file.open("wb") as stream:
        np.save(stream, states, allow_pickle=True)
    obstacle = None if proved else "put back, its states don't go on as it did"
    return ReplayedStates(written=True, proved=proved, initial=initial, obstacle=obstacle)


@dataclass(frozen=True)
class _Recorded:
    """What is needed of an episode's arrays for the proof.

    Attributes:
        actions: all.
        observed: observations around the steps that states are put back to, by step, in columns.
        is_known: whether the server knows the kind of its states.
    """

    actions: NDArray[Any]
    observed: dict[int, dict[str, NDArray[Any]]]
    is_known: bool


def _taken(replay: Replay) -> tuple[NDArray[np.object_], _Recorded]:
    """The states, while every observation is compared with the recorded one."""
    with open_arrays(replay.arrays, replay.arrays.name) as arrays, _staged(replay) as (recorder, env):
        actions = arrays["actions"]
        length = len(actions)
        states = np.empty((length, 1), dtype=object)
        near = {step for start in _starts(length) for step in range(start, start + _PROOF_STEPS + 1)}
        with seeded_globals(replay.seed):
            seed_spaces(env, replay.seed)
            env.reset(seed=replay.seed)
            taker = StateTaker(recorder)
            recorded = _Recorded(actions, {}, taker.is_known)
            for step, expected in enumerate(_observations(arrays)):
                _check(step, recorder, expected)
                if step in near:
                    recorded.observed[step] = expected
                if step < length:
                    states[step, 0] = {
                        "state": taker.take(),
                        "observation": _kept(recorder.observation),
                        "elapsed_steps": _elapsed(recorder, step),
                    }
                    env.step(actions[step])
    return states, recorded


def _observations(arrays: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    """The recorded observations in columns, row by row, the one that ended the episode last."""
    names = [name for name in arrays if name == ROOT or name.startswith(f"{ROOT}.")]
    for rows in zip(*(arrays.rows(name) for name in names), strict=True):
        yield dict(zip(names, rows, strict=True))
    yield {name: arrays[f"final_{name}"] for name in names}


def _starts(length: int) -> set[int]:
    """The steps whose states are tried out."""
    return {0, length // 2, length - 1}


def _is_proved(replay: Replay, states: NDArray[np.object_], recorded: _Recorded) -> bool:
    """Whether what the server does with the states gives the recorded observations."""
    length = len(states)
    with _staged(replay) as (recorder, env):
        for start in sorted(_starts(length)):
            env.reset(seed=_SERVER_SEED)
            put_back(recorder, pickle.loads(pickle.dumps(states[start, 0]["state"])))  # noqa: S301 (our own, of now)
            for step in range(start, min(start + _PROOF_STEPS, length)):
                env.step(recorded.actions[step])
                found = flatten_observation(recorder.observation_space, recorder.observation)
                if not all(_are_close(found[name], row) for name, row in recorded.observed[step + 1].items()):
                    return False
    return True


@contextmanager
def _staged(replay: Replay) -> Iterator[tuple[RawRecorder, gym.Env[Any, Any]]]:
    with seeded_globals(episode_seed(replay.run_seed, 0)):
        recorder = RawRecorder(make_environment(replay.environment, render=False))
    try:
        yield recorder, wrap_environment(recorder, replay.wrappers)
    finally:
        close_environment(recorder)


def _check(step: int, recorder: RawRecorder, expected: dict[str, NDArray[Any]]) -> None:
    found = flatten_observation(recorder.observation_space, recorder.observation)
    for name, row in expected.items():
        if not np.array_equal(found[name], row, equal_nan=row.dtype.kind in "fc"):
            raise DataNotUsableError(f"played again, the episode differs at step {step}")


def _are_close(found: Any, expected: Any) -> bool:
    if np.asarray(expected).dtype.kind not in "fc":
        return bool(np.array_equal(found, expected))
    return bool(np.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True))


def _kept(observation: Any) -> Any:
    parts = observation.values() if isinstance(observation, dict) else (observation,)
    size = sum(part.nbytes if isinstance(part, np.ndarray) else sys.getsizeof(part) for part in parts)
    return deepcopy(observation) if size <= _MOST_OBSERVED else None


def _elapsed(env: gym.Env[Any, Any], step: int) -> int:
    """Steps that its time limit has counted."""
    while isinstance(env, gym.Wrapper):
        elapsed = vars(env).get("_elapsed_steps")
        if elapsed is not None:
            return int(elapsed)
        env = env.env
    return step
