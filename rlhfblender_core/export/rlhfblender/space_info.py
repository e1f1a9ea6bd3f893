"""Spaces as RLHF-Blender's database has them: ``{'label': 'Discrete((2,))', 'shape': (2,), 'dtype': 'int64', …}``."""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from rlhfblender_core.environments import Space, observation_columns, space_from_description
from rlhfblender_core.export.request import ExperimentSource
from rlhfblender_core.untrusted.npz import open_arrays

#: Infinite bounds: the server evaluates the text, where ``inf`` is no name.
_FAR = 1e9
#: Values of larger spaces get no labels: nobody reads them, and some spaces have more than memory holds.
_MOST_LABELS = 1 << 16

SpaceInfo = dict[str, Any]


def space_infos(source: ExperimentSource, example: Path) -> tuple[SpaceInfo, SpaceInfo]:
    """Observation and action space of an experiment, as its episodes are exported.

    Args:
        source: the experiment.
        example: an exported episode, for environments that were registered without spaces.
    """
    names = source.environment.action_names
    if all(source.spaces):
        observation, action = map(space_from_description, source.spaces)
        return observation_info(observation), action_info(action, names)
    with open_arrays(example, str(example)) as arrays:  # the infos, which are pickled, are not read
        obs, actions, probs = arrays["obs"], arrays["actions"], arrays["probs"]
    is_discrete = actions.ndim == 1 and actions.dtype.kind in "iu"
    count = max(int(actions.max()) + 1, probs.shape[-1], len(names or ())) if is_discrete else 0
    known: Space = spaces.Discrete(count) if is_discrete else _widest(actions.shape[1:] or (1,), actions.dtype)
    return _info("Box", obs.shape[1:], str(obs.dtype), ()), action_info(known, names)


def _widest(shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Space:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return spaces.Box(int(limits.min), int(limits.max), shape, dtype.type)
    return spaces.MultiBinary(shape) if dtype.kind == "b" else spaces.Box(-np.inf, np.inf, shape, dtype.type)


def observation_info(space: Space) -> SpaceInfo:
    """An observation space as it is exported: structured ones are one row of numbers."""
    if isinstance(space, spaces.Discrete):
        return _info("Discrete", (int(space.n),), str(np.dtype(space.dtype)), ())
    columns = observation_columns(space)
    numeric = [column for column in columns.values() if column.dtype.kind != "U"]
    if isinstance(space, spaces.Dict | spaces.Tuple) or not numeric:
        dtype = np.result_type(*(column.dtype for column in numeric)) if numeric else np.dtype(np.float32)
        return _info("Box", (sum(prod(column.shape) for column in numeric) or 1,), str(dtype), ())
    (column,) = numeric
    return _info(type(space).__name__, column.shape, str(column.dtype), ())


def action_info(space: Space, names: Sequence[str] | None) -> SpaceInfo:
    """An action space as it is exported: flat, with the actions' names as labels."""
    if isinstance(space, spaces.Discrete):
        info = _info("Discrete", (int(space.n),), str(np.dtype(space.dtype)), names or ())
        start = int(space.start)
        # The UI looks an action's label up by its value.
        return info | {"labels": {str(start + int(key)): label for key, label in info["labels"].items()}}
    shape = (prod(space.shape or ()),)
    info = _info(type(space).__name__, shape, str(np.dtype(space.dtype)), names or ())
    if isinstance(space, spaces.Box):
        info |= {"low": _finite(space.low), "high": _finite(space.high)}
    return info


def _info(kind: str, shape: tuple[int, ...], dtype: str, names: Sequence[str]) -> SpaceInfo:
    shape = tuple(int(side) for side in shape)
    count = shape[0] if len(shape) == 1 else 0  # pictures have no labels
    labels = dict(zip(map(str, range(count)), names or range(count), strict=False)) if count <= _MOST_LABELS else {}
    return {"label": f"{kind}({shape})", "shape": shape, "dtype": dtype, "labels": labels}


def _finite(bounds: Any) -> list[float]:
    flat = np.asarray(bounds).ravel()
    is_float = flat.dtype.kind == "f"
    numbers: list[float] = (np.clip(flat.astype(np.float64), -_FAR, _FAR) if is_float else flat).tolist()
    return numbers
