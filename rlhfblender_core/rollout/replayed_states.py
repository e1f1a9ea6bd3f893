"""The states of an environment that RLHF-Blender's server puts back, written in a worker process.

They are taken while an episode is played again, or were imported with it. Some are tried out: put back into another
environment as the server does it, they have to go on as recorded.
"""

import pickle
import sys
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import ELAPSED_STEPS, ENV_STATE
from rlhfblender_core.dataset.state_texts import is_state_text, state_of
from rlhfblender_core.environments import EnvironmentSpec, flatten_observation
from rlhfblender_core.environments.contained import contained, is_interrupt
from rlhfblender_core.environments.observations import ROOT
from rlhfblender_core.environments.quiet import quiet_output
from rlhfblender_core.environments.states import StateTaker, hides_state, put_back, random_state
from rlhfblender_core.errors import DataNotUsableError, RLHFBlenderError, one_line
from rlhfblender_core.rollout.episode import RawRecorder
from rlhfblender_core.rollout.replay import Replay, recorded_observations, replayed, staged
from rlhfblender_core.untrusted.limits import MAX_STATES_BYTES
from rlhfblender_core.untrusted.npz import Arrays, open_arrays

#: RLHF-Blender's server resets its environment from the first of these before it puts a state back; it mustn't matter.
_RESET_SEEDS = (42, 43)
#: Steps taken from a state that was put back. Physics that is put back without its solver's guesses drifts apart later.
_PROOF_STEPS = 20
#: Of observations that are floats: the solver of MuJoCo starts from other guesses.
_TOLERANCE = 1e-5
#: Observations of more bytes are pictures, which the episode's arrays have already.
_MOST_OBSERVED = 4096


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


def write_states(replay: Replay, arrays: Path, file: Path) -> ReplayedStates:
    """Plays the episode again and writes its states, (T, 1): each ``{"state", "observation", "elapsed_steps"}``.

    Args:
        replay: the episode.
        arrays: its ``.npz``.
        file: to be written, ``.npy``.
    """
    return _reported(lambda: _taken(replay, arrays), replay, file)


def give_states_back(environment: EnvironmentSpec | None, arrays: Path, file: Path) -> ReplayedStates:
    """Writes the states that an episode was imported with, (T, 1), as :func:`write_states` does.

    Args:
        environment: to put them back into; None where it mustn't be made, and they can't be proved.
        arrays: the episode's ``.npz``, with :data:`~rlhfblender_core.dataset.layout.ENV_STATE` columns.
        file: to be written, ``.npy``.
    """
    replay = None if environment is None else Replay(environment, (), 0, 0)
    return _reported(lambda: _given(arrays), replay, file)


def stored_states(arrays: Arrays) -> NDArray[np.object_]:
    """The states that an episode was imported with, (T, 1); each ``{"state", "observation", "elapsed_steps"}``."""
    names = [name for name in arrays if name == ENV_STATE or name.startswith(f"{ENV_STATE}.")]
    columns = {name.removeprefix(ENV_STATE).removeprefix("."): arrays[name] for name in names}
    elapsed = arrays[ELAPSED_STEPS].tolist()
    states = np.empty((len(elapsed), 1), dtype=object)
    for step, steps in enumerate(elapsed):
        row = {name: column[step] for name, column in columns.items()}
        state = row.get("", _nested(row))
        state = state_of(state) if is_state_text(state) else state
        states[step, 0] = {"state": state, "observation": None, "elapsed_steps": steps}
    return states


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """``{"arm.angle": …}`` as ``{"arm": {"angle": …}}``."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        *outer, last = name.split(".")
        inner = found
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return found


@dataclass(frozen=True)
class _Taken:
    """States, and what is needed of their episode's arrays to prove them.

    Attributes:
        states: (T, 1).
        actions: all.
        observed: observations around the steps that states are put back to, by step, in columns.
        is_known: whether the server knows the kind of the states.
    """

    states: NDArray[np.object_]
    actions: NDArray[Any]
    observed: dict[int, dict[str, NDArray[Any]]]
    is_known: bool


def _reported(take: Callable[[], _Taken], replay: Replay | None, file: Path) -> ReplayedStates:
    """Writes what is taken; what the environment does wrong is the report's obstacle."""
    try:
        with contained(), quiet_output():
            taken = take()
            is_proved = replay is not None and _is_proved(replay, taken)
            if not (is_proved or taken.is_known):
                return ReplayedStates(written=False, proved=False, obstacle="its state can't be taken and put back")
            return _written(taken.states, file, proved=is_proved)
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
    for (row,) in states:
        row["state"] = _handed_over(row["state"])
    with file.open("wb") as stream:
        np.save(stream, states, allow_pickle=True)
    obstacle = None if proved else "put back, its states don't go on as it did"
    return ReplayedStates(written=True, proved=proved, initial=initial, obstacle=obstacle)


def _handed_over(state: Any) -> Any:
    """The state so that the server gets it: it calls ``item()`` where there is one, which rows of numbers refuse."""
    if not isinstance(state, np.ndarray):
        return state
    held = np.empty((), dtype=object)
    held[()] = state
    return held


def _given(file: Path) -> _Taken:
    """The states that an episode was imported with."""
    with open_arrays(file, file.name) as arrays:
        observed = dict(enumerate(recorded_observations(arrays)))
        return _Taken(stored_states(arrays), arrays["actions"], observed, is_known=True)


def _taken(replay: Replay, file: Path) -> _Taken:
    """The states of an episode that is played again."""
    with open_arrays(file, file.name) as arrays:
        actions = arrays["actions"]
        length = len(actions)
        states = np.empty((length, 1), dtype=object)
        near = {step for start in _starts(length) for step in range(start, start + _PROOF_STEPS + 1)}
        observed, taker = {}, None
        for moment in replayed(replay, arrays):
            taker = taker or StateTaker(moment.recorder)
            if moment.step in near:
                observed[moment.step] = moment.expected
            if moment.step < length:
                states[moment.step, 0] = {
                    "state": taker.take(),
                    "observation": _kept(moment.recorder.observation),
                    "elapsed_steps": _elapsed(moment.recorder, moment.step),
                }
    return _Taken(states, actions, observed, is_known=taker is not None and taker.is_known)


def _starts(length: int) -> list[int]:
    """The steps whose states are tried out."""
    return sorted({0, length // 2, length - 1})


def _is_proved(replay: Replay, taken: _Taken) -> bool:
    """Whether what the server does with the states gives the recorded observations, and not by luck.

    Short episodes go on as recorded by luck where chance decides: a state that doesn't bring the random generator back
    is no proof if steps draw from it.
    """
    with staged(replay) as (recorder, env):
        if hides_state(recorder):
            return False
        for start in _starts(len(taken.states)):
            drawn = [_goes_on(recorder, env, seed, start, taken) for seed in _RESET_SEEDS]
            if None in drawn or (len(set(drawn)) > 1 and any(before != after for before, after in filter(None, drawn))):
                return False
    return True


def _goes_on(
    recorder: RawRecorder, env: gym.Env[Any, Any], seed: int, start: int, taken: _Taken
) -> tuple[bytes, bytes] | None:
    """The random generator before and after the steps from a state that is put back; None where they differ."""
    env.reset(seed=seed)
    put_back(recorder, pickle.loads(pickle.dumps(taken.states[start, 0]["state"])))  # noqa: S301 (our own, of now)
    before = random_state(recorder)
    for step, action in enumerate(taken.actions[start : start + _PROOF_STEPS], start + 1):
        _, _, terminated, *_ = env.step(action)
        if terminated and step < len(taken.actions):  # a task whose goal is in no state
            return None
        found = flatten_observation(recorder.observation_space, recorder.observation)
        expected = taken.observed.get(step, {})
        if expected.keys() == {ROOT} != found.keys():  # imported from where dictionaries are one row of numbers
            found = {ROOT: np.concatenate([np.ravel(part) for part in found.values() if part.dtype.kind in "biuf"])}
        if not all(name in found and _are_close(found[name], row) for name, row in expected.items()):
            return None
    return before, random_state(recorder)


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
