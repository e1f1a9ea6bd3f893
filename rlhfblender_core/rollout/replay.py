"""An episode played again from its seed and actions, exactly: observations and rewards are compared with the recorded.

:func:`replayed` is the one way to do that. :func:`write_states` takes the environment's states on the way, in a worker
process; a user steps through it in Python (:meth:`rlhfblender_core.reading.episode.Episode.replay`).
"""

import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import ELAPSED_STEPS, ENV_STATE
from rlhfblender_core.dataset.manifests import Manifest, PolicyRecord
from rlhfblender_core.dataset.state_texts import is_state_text, state_of
from rlhfblender_core.environments import (
    EnvironmentSpec,
    Trust,
    close_environment,
    flatten_observation,
    free_closed_environments,
    make_environment,
)
from rlhfblender_core.environments.contained import contained, is_interrupt
from rlhfblender_core.environments.observations import ROOT
from rlhfblender_core.environments.quiet import quiet_output
from rlhfblender_core.environments.states import StateTaker, hides_state, put_back, random_state
from rlhfblender_core.errors import DataNotUsableError, RLHFBlenderError, one_line
from rlhfblender_core.rollout.episode import RawRecorder
from rlhfblender_core.rollout.seeding import SeededGlobals, episode_seed, seed_spaces
from rlhfblender_core.untrusted.limits import MAX_STATES_BYTES
from rlhfblender_core.untrusted.npz import Arrays, open_arrays
from rlhfblender_core.wrappers import WrapperSpec, wrap_environment

#: RLHF-Blender's server resets its environment from the first of these before it puts a state back; it mustn't matter.
_RESET_SEEDS = (42, 43)
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
    with _staged(replay) as (recorder, env):
        with globally:
            seed_spaces(env, replay.seed)
            env.reset(seed=replay.seed)
        for step, expected in enumerate(_observations(arrays)):
            _check(step, recorder, expected)
            yield Moment(step, env, recorder, expected)
            if step < len(actions):
                with globally:
                    env.step(actions[step])
                if not np.array_equal(recorder.take_reward(), rewards[step], equal_nan=True):
                    raise _differs(step)


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

    def take() -> _Taken:
        states, recorded = _taken(replay, arrays)
        return _Taken(states, recorded.is_known, _is_proved(replay, states, recorded))

    return _reported(take, file)


def give_states_back(environment: EnvironmentSpec | None, arrays: Path, file: Path) -> ReplayedStates:
    """Writes the states that an episode was imported with, (T, 1), as :func:`write_states` does.

    Args:
        environment: to put them back into; None where it mustn't be made, and they can't be proved.
        arrays: the episode's ``.npz``, with :data:`~rlhfblender_core.dataset.layout.ENV_STATE` columns.
        file: to be written, ``.npy``.
    """

    def take() -> _Taken:
        with open_arrays(arrays, arrays.name) as loaded:
            states, observed = stored_states(loaded), dict(enumerate(_observations(loaded)))
            recorded = _Recorded(loaded["actions"], observed, is_known=True)
        is_proved = environment is not None and _is_proved(Replay(environment, (), 0, 0), states, recorded)
        return _Taken(states, is_known=True, is_proved=is_proved)

    return _reported(take, file)


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
    """States, whether the server knows their kind, and whether putting them back was seen to work."""

    states: NDArray[np.object_]
    is_known: bool
    is_proved: bool


def _reported(take: Callable[[], _Taken], file: Path) -> ReplayedStates:
    """Writes what is taken; what the environment does wrong is the report's obstacle."""
    try:
        with contained(), quiet_output():
            taken = take()
            if not (taken.is_proved or taken.is_known):
                return ReplayedStates(written=False, proved=False, obstacle="its state can't be taken and put back")
            return _written(taken.states, file, proved=taken.is_proved)
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


def _taken(replay: Replay, file: Path) -> tuple[NDArray[np.object_], _Recorded]:
    """The states, and what is needed to prove them."""
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
    return states, _Recorded(actions, observed, is_known=taker is not None and taker.is_known)


def _observations(arrays: Arrays) -> Iterator[dict[str, NDArray[Any]]]:
    """The recorded observations in columns, row by row, the one that ended the episode last."""
    names = [name for name in arrays if name == ROOT or name.startswith(f"{ROOT}.")]
    for rows in zip(*(arrays.rows(name) for name in names), strict=True):
        yield dict(zip(names, rows, strict=True))
    if all(f"final_{name}" in arrays for name in names):  # of some imported ones it isn't known
        yield {name: arrays[f"final_{name}"] for name in names}


def _starts(length: int) -> list[int]:
    """The steps whose states are tried out."""
    return sorted({0, length // 2, length - 1})


def _is_proved(replay: Replay, states: NDArray[np.object_], recorded: _Recorded) -> bool:
    """Whether what the server does with the states gives the recorded observations, and not by luck.

    Short episodes go on as recorded by luck where chance decides: a state that doesn't bring the random generator back
    is no proof if steps draw from it.
    """
    with _staged(replay) as (recorder, env):
        if hides_state(recorder):
            return False
        for start in _starts(len(states)):
            drawn = [_goes_on(recorder, env, seed, states[start, 0]["state"], start, recorded) for seed in _RESET_SEEDS]
            if None in drawn or (len(set(drawn)) > 1 and any(before != after for before, after in filter(None, drawn))):
                return False
    return True


def _goes_on(
    recorder: RawRecorder, env: gym.Env[Any, Any], seed: int, state: Any, start: int, recorded: _Recorded
) -> tuple[bytes, bytes] | None:
    """The random generator before and after the steps from a state that is put back; None where they differ."""
    env.reset(seed=seed)
    put_back(recorder, pickle.loads(pickle.dumps(state)))  # noqa: S301 (our own, of now)
    before = random_state(recorder)
    for step, action in enumerate(recorded.actions[start : start + _PROOF_STEPS], start + 1):
        env.step(action)
        found = flatten_observation(recorder.observation_space, recorder.observation)
        expected = recorded.observed.get(step, {})
        if expected.keys() == {ROOT} != found.keys():  # imported from where dictionaries are one row of numbers
            found = {ROOT: np.concatenate([np.ravel(part) for part in found.values() if part.dtype.kind in "biuf"])}
        if not all(name in found and _are_close(found[name], row) for name, row in expected.items()):
            return None
    return before, random_state(recorder)


@contextmanager
def _staged(replay: Replay) -> Iterator[tuple[RawRecorder, gym.Env[Any, Any]]]:
    free_closed_environments()  # of earlier episodes
    with SeededGlobals(episode_seed(replay.run_seed, 0)):
        recorder = RawRecorder(make_environment(replay.environment, render=replay.render))
    try:
        yield recorder, wrap_environment(recorder, replay.wrappers)
    finally:
        close_environment(recorder)


def _check(step: int, recorder: RawRecorder, expected: dict[str, NDArray[Any]]) -> None:
    found = flatten_observation(recorder.observation_space, recorder.observation)
    for name, row in expected.items():
        if not np.array_equal(found[name], row, equal_nan=row.dtype.kind in "fc"):
            raise _differs(step)


def _differs(step: int) -> DataNotUsableError:
    return DataNotUsableError(f"played again, the episode differs at step {step}")


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
