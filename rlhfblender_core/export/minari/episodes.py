"""Our episodes in Minari's form: observations with the final one, nested as their space is, infos by key."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlhfblender_core.dataset.infos import info_from_json
from rlhfblender_core.environments import Space, observation_columns
from rlhfblender_core.untrusted.npz import open_arrays, reading_arrays

#: The printable part of ASCII: for spaces of texts that don't say what they hold.
_CHARACTERS = "".join(map(chr, range(32, 127)))
#: Keys of infos that aren't the same kind of thing in every step, as JSON texts.
_JSON_SUFFIX = "__json"

_Arrays = Mapping[str, NDArray[Any]]


def minari_space(space: Space) -> Space:
    """The space in Gymnasium's own kinds, which are those that Minari can store: texts of MiniGrid's become Text.

    Keys become names that HDF5 can hold, as those of infos do.
    """
    if isinstance(space, spaces.Dict):
        # As pairs: the keys of a mapping would be sorted.
        return spaces.Dict([(_member(key), minari_space(child)) for key, child in space.spaces.items()])
    if isinstance(space, spaces.Tuple):
        return spaces.Tuple([minari_space(child) for child in space.spaces])
    if isinstance(space, spaces.Text) and space.character_set == spaces.Text(1).character_set:
        return spaces.Text(space.max_length, min_length=0, charset=_CHARACTERS)
    return space


def minari_fields(source: Path, observation_space: Space) -> dict[str, Any]:
    """The fields of Minari's EpisodeBuffer for one of our ``.npz`` files; observations have T+1 rows, infos T.

    Args:
        source: the file.
        observation_space: the environment's.
    """
    with reading_arrays(str(source)), open_arrays(source, str(source)) as arrays:
        names = iter(observation_columns(observation_space))
        return {
            "observations": _observations(observation_space, arrays, names),
            "actions": arrays["actions"],
            "rewards": arrays["rewards"],
            "terminations": arrays["terminated"],
            "truncations": arrays["truncated"],
            "infos": minari_infos([info_from_json(text) for text in arrays["infos"].tolist()]),
        }


def _observations(space: Space, arrays: _Arrays, names: Iterator[str]) -> Any:
    """Arrays of the columns, in the space's structure; ``names`` are theirs in the space's order."""
    if isinstance(space, spaces.Dict):
        return {_member(key): _observations(child, arrays, names) for key, child in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_observations(child, arrays, names) for child in space.spaces)
    name = next(names)
    rows = np.concatenate([arrays[name], arrays[f"final_{name}"][np.newaxis]])
    return rows.tolist() if rows.dtype.kind == "U" else rows


def minari_infos(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The infos of T steps by key: an array of T rows where every step has the key with the same kind of value.

    Other keys are texts, ``<key>__json``: JSON, empty where a step doesn't have the key.
    """
    keys = dict.fromkeys(key for info in infos for key in info)
    fields: dict[str, Any] = {}
    for key in keys:
        values = [info[key] for info in infos if key in info]
        column = _column(values) if len(values) == len(infos) else None
        if column is None:
            texts = [json.dumps(info[key]) if key in info else "" for info in infos]
            fields[f"{_member(key)}{_JSON_SUFFIX}"] = texts
        else:
            fields[_member(key)] = column
    return fields


def _member(key: str) -> str:
    """The key as a name in HDF5: ``/`` separates groups, ``.`` is the group itself, NUL ends it, and none is empty."""
    key = key.encode(errors="backslashreplace").decode().replace("\0", "%00")
    return key.replace("/", "%2F") if key.strip(".") else f"%{key}"


def _column(values: Sequence[Any]) -> Any:
    """What HDF5 stores as one array per key: numbers, flags, texts, arrays of them, or dictionaries; else None."""
    if all(isinstance(value, dict) for value in values):
        is_regular = values[0] and all(value.keys() == values[0].keys() for value in values)
        nested = minari_infos(values) if is_regular else {}
        return None if not nested or any(key.endswith(_JSON_SUFFIX) for key in nested) else nested
    if all(isinstance(value, str) for value in values):
        return list(values) if all(map(_is_storable, values)) else None
    kinds = {_kind(value) for value in values}
    if len(kinds) != 1 or None in kinds:
        return None
    try:
        column = np.asarray(values)
    except (ValueError, OverflowError):
        return None
    return column if column.dtype.kind in "biuf" and math.prod(column.shape) else None


def _is_storable(text: str) -> bool:
    """Whether HDF5 can hold the text: no end mark in it, and no half of a character, which has no UTF-8."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _kind(value: object) -> object:
    """What values must have in common to be rows of one array: type and shape; None for what no array holds."""
    if isinstance(value, bool | int | float):
        return type(value)
    if isinstance(value, list):
        kinds = {_kind(item) for item in value}
        return (len(value), *kinds) if len(kinds) == 1 and None not in kinds else None
    return None
