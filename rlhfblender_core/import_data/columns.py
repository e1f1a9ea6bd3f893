"""An episode's arrays in a source, converted to the columns of this data set's ``.npz``.

Which keys those are and what they mean: ``docs/data_set.md``. Values are taken as they are, rows aren't shifted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.infos import info_to_json
from rlhfblender_core.dataset.layout import ELAPSED_STEPS, ENV_STATE
from rlhfblender_core.dataset.npz import Column, TextColumn, WholeArray
from rlhfblender_core.import_data.arrays import FaultError, Members, is_column_name
from rlhfblender_core.untrusted.json_values import parse_json
from rlhfblender_core.untrusted.limits import MAX_STEPS, MAX_TEXTS_BYTES
from rlhfblender_core.untrusted.pickles import DamagedPickleError, RefusedPickleError

#: Of a demonstration: the pictures that the person saw, (T, height, width, 3).
RENDERS = "renders"
#: Likewise, the environment's states.
STATES = "env_states"
#: Handled one by one, or never read by anybody.
_OWN = frozenset(
    {"rewards", "actions", "infos", "dones", "terminated", "truncated", "seed", "probs"}
    | {
        "episode_return",
        "episode_length",
        "episode_rewards",
        "episode_lengths",
        RENDERS,
        STATES,
        "additional_metrics",
    }
)
#: Checked to have as many rows as the rewards, where they are there.
_PER_STEP = ("infos", "dones", "terminated", "truncated")
_FINAL = "final_"
#: Stable-Baselines3's name for what the environment returned last, in the info of that step.
_LAST_OBSERVATION = "terminal_observation"
_MIN_PROBABILITIES = 2

Info = dict[str, Any]


@dataclass
class EpisodeColumns:
    """The columns of an episode, and what the manifest says of it.

    Attributes:
        columns: by name, in the order of the archive.
        rewards: float64 (T,), per step.
        cumulative: float64 (T,), their sum so far.
        terminated, truncated: how it ended.
        seed: None where the source doesn't say.
        notes: what a person should know of the conversion.
    """

    columns: dict[str, Column]
    rewards: NDArray[np.float64]
    cumulative: NDArray[np.float64]
    terminated: bool
    truncated: bool
    seed: int | None
    notes: list[str] = field(default_factory=list)

    def close(self) -> None:
        """Frees temporary files."""
        for column in self.columns.values():
            column.close()


def convert_columns(members: Members, spool_folder: Path, states: Sequence[Any] | None = None) -> EpisodeColumns:
    """The columns that the source's arrays become.

    Args:
        members: the arrays.
        spool_folder: for texts on their way.
        states: of the environment, as RLHF-Blender's server keeps them: a dictionary per step; None where there are
            none beside the arrays.

    Raises:
        FaultError: an array is missing, has another length than the rewards, or can't be converted.
    """
    columns: dict[str, Column] = {}
    try:
        converted = _converted(members, spool_folder, columns)
        converted.notes += _add_states(columns, members, states, len(converted.rewards))
        return converted
    except BaseException:  # an interrupt, too, must leave no temporary file
        for column in columns.values():
            column.close()
        raise


def _converted(members: Members, spool_folder: Path, columns: dict[str, Column]) -> EpisodeColumns:
    """Fills ``columns``, which the caller closes if that fails."""
    observations = sorted(name for name in members.headers if _is_observation(name))
    missing = [name for name in ("actions", "rewards") if name not in members] + ([] if observations else ["obs"])
    if missing:
        raise FaultError(f"has no {' and no '.join(missing)}")
    rewards = _rewards(members)
    length = len(rewards)
    _check_rows(members, [*observations, "actions", *(n for n in _PER_STEP if n in members)], length)
    infos = _infos(members, length)
    for name in observations:
        _add(columns, _observation(members, name))
    _add(columns, _final_observation(members, columns, infos))
    terminated, truncated = _ending(members, infos)
    _add(columns, {"actions": _column(members, "actions"), "rewards": WholeArray(rewards)})
    _add(columns, {name: WholeArray(flags) for name, flags in _flags(length, terminated, truncated).items()})
    _add(columns, {"infos": _text_column(infos, length, spool_folder)})
    _add(columns, _others(members, length, columns))
    seed = _seed(members)
    with np.errstate(over="ignore", invalid="ignore"):  # rewards may be anything
        cumulative = np.cumsum(rewards)
    scalars = {"episode_return": cumulative[-1], "episode_length": np.int64(length)}
    scalars |= {} if seed is None else {"seed": np.int64(seed)}
    _add(columns, {name: WholeArray(np.asarray(value)) for name, value in scalars.items()})
    return EpisodeColumns(columns, rewards, cumulative, terminated, truncated, seed, _notes(members, columns, length))


def _add_states(columns: dict[str, Column], members: Members, given: Sequence[Any] | None, length: int) -> list[str]:
    """Adds the environment's states; gives what a person should know of those that stay out."""
    try:
        states = members.states(STATES) if given is None and STATES in members else given
        _add(columns, _state_columns(states, length) if states else {})
    except (FaultError, RefusedPickleError, DamagedPickleError) as error:
        return [f"its states of the environment are left out: {str(error)[:200]}"]
    return []


def _state_columns(states: Sequence[Any], length: int) -> dict[str, Column]:
    rows = [row for row in states if isinstance(row, dict) and row.get("state") is not None]
    if len(rows) != length:
        raise FaultError(f"there are {len(rows)} for {length} steps")
    elapsed = np.array([row.get("elapsed_steps", step) for step, row in enumerate(rows)])
    if elapsed.dtype.kind not in "iu":
        raise FaultError("their elapsed_steps are no numbers")
    found = _by_key([row["state"] for row in rows], ENV_STATE)
    columns: dict[str, Column] = {name: WholeArray(_stacked(values, name)) for name, values in found.items()}
    return {**columns, ELAPSED_STEPS: WholeArray(elapsed.astype(np.int64))}


def _add(columns: dict[str, Column], more: Mapping[str, Column]) -> None:
    """Adds columns of other names.

    Raises:
        FaultError: two would become one, or one would have no name that a column can have.
    """
    for name, column in more.items():
        if not is_column_name(name):
            raise FaultError(f"{name!r:.80} can't be the name of a column; use letters, digits, dots and dashes")
        if name in columns:
            raise FaultError(f"two of its columns would both become {name}; rename one of them")
        columns[name] = column


def _rewards(members: Members) -> NDArray[np.float64]:
    """One number per step."""
    shape = members.headers["rewards"].shape
    if shape and shape[0] > MAX_STEPS:
        raise FaultError(f"has {shape[0]:,} steps; at most {MAX_STEPS:,} are read")
    rewards = _numbers(members, "rewards").astype(np.float64)
    if rewards.ndim != 1 or len(rewards) == 0:
        raise FaultError(f"its rewards have shape {rewards.shape}, not one number per step")
    return rewards


def _is_observation(name: str) -> bool:
    return name == "obs" or name.startswith("obs.")


def _check_rows(members: Members, names: Sequence[str], length: int) -> None:
    for name in names:
        rows = members.rows(name)
        if rows != length:
            found = "one value and no rows" if rows is None else f"{rows} rows"
            raise FaultError(f"{name} has {found}, rewards has {length}")


def _numbers(members: Members, name: str) -> NDArray[Any]:
    array = np.array(members.objects(name)) if members.has_objects(name) else members.array(name)
    if array.dtype.kind not in "biuf":
        raise FaultError(f"{name} is an array of {array.dtype}, not of numbers")
    return array


def _column(members: Members, name: str) -> Column:
    """An array as a column; objects become numbers, if they all have one shape."""
    return WholeArray(_stacked(members.objects(name), name)) if members.has_objects(name) else members.column(name)


def _stacked(rows: Sequence[Any], name: str) -> NDArray[Any]:
    try:
        array = np.array(rows)
    except ValueError as error:  # numpy's word for rows that don't stack
        raise FaultError(f"{name} has rows of several shapes") from error
    if array.dtype.kind not in "biufU":
        raise FaultError(f"{name} has rows that are neither numbers nor texts")
    return array


def _observation(members: Members, name: str) -> dict[str, Column]:
    """One column, or one per key where each row is a dict."""
    if not members.has_objects(name):
        return {name: members.column(name)}
    rows = members.objects(name)
    return {key: WholeArray(_stacked(values, key)) for key, values in _by_key(rows, name).items()}


def _by_key(rows: Sequence[Any], name: str) -> dict[str, list[Any]]:
    if not isinstance(rows[0], dict):
        return {name: list(rows)}
    if not rows[0]:
        raise FaultError(f"{name} has rows without a value")
    if any(not isinstance(row, dict) or row.keys() != rows[0].keys() for row in rows):
        raise FaultError(f"{name} has rows with other keys than the first")
    found: dict[str, list[Any]] = {}
    for key in rows[0]:
        inner = _by_key([row[key] for row in rows], f"{name}.{key}")
        both = next(iter(found.keys() & inner.keys()), None)
        if both is not None:
            raise FaultError(f"{name} has two keys that would both become {both}; rename one of them")
        found |= inner
    return found


def _final_observation(
    members: Members, observations: Mapping[str, Column], infos: list[Info] | None
) -> dict[str, Column]:
    """What the environment returned last: as the source has it, or from the last step's info."""
    own = sorted(name for name in members.headers if name.startswith(f"{_FINAL}obs"))
    if own:
        return {name: members.column(name) for name in own if not members.has_objects(name)}
    last = infos[-1].pop(_LAST_OBSERVATION, None) if infos else None
    if last is None or set(observations) != {"obs"}:
        return {}
    header = observations["obs"].header()
    array = np.asarray(last)
    fits = array.shape == tuple(header["shape"][1:]) and array.dtype.kind in "biuf"
    return {f"{_FINAL}obs": WholeArray(array.astype(np.dtype(header["descr"])))} if fits else {}


def _infos(members: Members, length: int) -> list[Info] | None:
    """The info of each step; None where there are none."""
    if "infos" not in members:
        return None
    if members.has_objects("infos"):
        rows = members.objects("infos")
    elif members.headers["infos"].dtype.kind == "U":
        rows = [parse_json(text) for text in members.array("infos").tolist()]
    else:
        raise FaultError(f"infos is an array of {members.headers['infos'].dtype}, not one dict per step")
    infos = [{} if row is None else row for row in rows]
    if len(infos) != length or not all(isinstance(row, dict) for row in infos):
        raise FaultError("infos isn't one dict per step")
    for step, info in enumerate(infos):
        _check_keys(info, step)
    return infos


def _check_keys(info: Any, step: int) -> None:
    """Makes sure that no two keys become one: in JSON all keys are texts."""
    if isinstance(info, dict):
        if len({str(key) for key in info}) != len(info):
            raise FaultError(f"the info of step {step} has two keys that would become one text")
        for value in info.values():
            _check_keys(value, step)
    elif isinstance(info, list):
        for value in info:
            _check_keys(value, step)


def _text_column(infos: list[Info] | None, length: int, spool_folder: Path) -> Column:
    column = TextColumn(spool_folder)
    column.extend([info_to_json(info) for info in infos] if infos is not None else ["{}"] * length)
    size = np.dtype(column.header()["descr"]).itemsize * length
    if size > MAX_TEXTS_BYTES:  # each row is as wide as the longest
        column.close()
        raise FaultError(f"its infos would take {size:,} bytes, as one of them is very long")
    return column


def _ending(members: Members, infos: list[Info] | None) -> tuple[bool, bool]:
    """Whether the environment ended the episode, and whether a limit did; a recording that stops is cut off."""
    if "terminated" in members and "truncated" in members:
        return _last_flag(members, "terminated"), _last_flag(members, "truncated")
    if infos and infos[-1].get("TimeLimit.truncated"):
        return False, True
    is_done = _last_flag(members, "dones") if "dones" in members else True
    return is_done, not is_done


def _last_flag(members: Members, name: str) -> bool:
    flags = _numbers(members, name)
    if flags.ndim != 1 or len(flags) == 0:
        raise FaultError(f"{name} has shape {flags.shape}, not one flag per step")
    return bool(flags[-1])


def _flags(length: int, terminated: bool, truncated: bool) -> dict[str, NDArray[np.bool_]]:  # noqa: FBT001 (two facts)
    flags = {}
    for name, value in (("terminated", terminated), ("truncated", truncated), ("dones", terminated or truncated)):
        flags[name] = np.zeros(length, np.bool_)
        flags[name][-1] = value
    return flags


def _others(members: Members, length: int, taken: Mapping[str, Column]) -> dict[str, Column]:
    """What else has a row per step, e.g. ``entropy`` or ``features``."""
    found: dict[str, Column] = {}
    for name in members.headers:
        is_known = name in taken or name in _OWN or name.startswith(("obs", _FINAL))
        if not is_known and members.rows(name) == length and not members.has_objects(name):
            found[name] = members.column(name)
    if "probs" in members and not members.has_objects("probs") and members.rows("probs") == length:
        probabilities = members.array("probs").reshape(length, -1)
        if probabilities.shape[1] >= _MIN_PROBABILITIES:
            found["probs"] = WholeArray(probabilities.astype(np.float32))
    return found


def _seed(members: Members) -> int | None:
    if "seed" not in members or members.headers["seed"].shape != () or members.headers["seed"].dtype.kind not in "iu":
        return None
    seed = int(members.array("seed"))
    return seed if 0 <= seed < 2**63 else None


def _notes(members: Members, columns: Mapping[str, Column], length: int) -> list[str]:
    # Empty ones are RLHF-Blender's way to say that there are none.
    known = {*columns, *_OWN, *(name for name in members.headers if _is_observation(name))}
    dropped = [name for name in members.headers if name not in known and members.rows(name) != 0]
    notes = [f"{', '.join(dropped)} left out: not one row of numbers or texts per step"] if dropped else []
    if members.ignored:
        notes.append(f"{', '.join(members.ignored[:3])[:80]} left out: no array's name")
    if "infos" not in members:
        notes.append("it has no infos; they are empty")
    if "dones" in members and length > 1 and _numbers(members, "dones")[:-1].any():
        notes.append("dones is set before the last row; only the last row's is kept")
    return notes
