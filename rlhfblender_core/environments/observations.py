"""Observations of any supported space as named columns of fixed dtype and shape, and back.

A plain space is the one column ``obs``; a Dict is one column per key (``obs.position``, nested ``obs.arm.angle``), a
Tuple one per index (``obs.0``). How columns are stored is in :mod:`rlhfblender_core.dataset.npz`.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlhfblender_core.environments.spaces import Space, describe_space, is_text, text_length
from rlhfblender_core.errors import EnvironmentNotUsableError

#: The column of a plain space, and what the columns of others begin with.
ROOT = "obs"


class ColumnSpec(NamedTuple):
    """One row of a column: its dtype, and its shape without the axis of steps."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def observation_columns(space: Space, root: str = ROOT) -> dict[str, ColumnSpec]:
    """The columns of a space's observations, in the order of the space.

    Texts are NumPy's fixed-width unicode, as wide as the space's longest text.

    Raises:
        EnvironmentNotUsableError: the space is of no supported kind.
    """
    describe_space(space)  # raises for what isn't supported
    return {name: _column(leaf) for name, leaf in _leaves(space, root)}


def flatten_observation(space: Space, observation: Any, root: str = ROOT) -> dict[str, NDArray[Any]]:
    """One observation as one row per column of :func:`observation_columns`.

    Rows may share memory with the observation: copy what is kept beyond the next step.

    Raises:
        EnvironmentNotUsableError: the observation doesn't fit its space in shape, dtype, keys or length of a text.
            Whether numbers lie within the bounds is not checked.
    """
    if isinstance(space, spaces.Box):  # the usual case, at every step
        return {root: _array_row(space, observation, root)}
    rows: dict[str, NDArray[Any]] = {}
    _flatten(space, observation, root, rows)
    return rows


def unflatten_observation(space: Space, rows: Mapping[str, Any], root: str = ROOT) -> Any:
    """The observation that :func:`flatten_observation` made the rows from: dictionaries, tuples, arrays, texts.

    Raises:
        KeyError: a column of the space is missing.
    """
    if isinstance(space, spaces.Dict):
        return {key: unflatten_observation(child, rows, _child(root, key)) for key, child in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(unflatten_observation(child, rows, _child(root, str(i))) for i, child in enumerate(space.spaces))
    row = rows[root]
    if is_text(space):
        return str(row)
    column = _column(space)
    array = np.asarray(row, dtype=column.dtype).reshape(column.shape)
    return array if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary) else array[()]


def _leaves(space: Space, name: str) -> Iterator[tuple[str, Space]]:
    if isinstance(space, spaces.Dict):
        for key, child in space.spaces.items():
            yield from _leaves(child, _child(name, key))
    elif isinstance(space, spaces.Tuple):
        for index, child in enumerate(space.spaces):
            yield from _leaves(child, _child(name, str(index)))
    else:
        yield name, space


@functools.lru_cache(maxsize=1024)
def _child(name: str, key: str) -> str:
    # Columns are members of a zip and "." separates levels: percent-encoding keeps all keys apart.
    return f"{name}.{quote(key, safe='', errors='surrogatepass').replace('.', '%2E')}"


def _column(space: Space) -> ColumnSpec:
    if is_text(space):
        return ColumnSpec(np.dtype(f"<U{text_length(space)}"), ())
    return ColumnSpec(np.dtype(space.dtype), tuple(space.shape or ()))


def _flatten(space: Space, observation: Any, name: str, rows: dict[str, NDArray[Any]]) -> None:
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping) or observation.keys() != space.spaces.keys():
            found = ", ".join(map(str, observation)) if isinstance(observation, Mapping) else type(observation).__name__
            raise _misfit(name, f"the keys {', '.join(space.spaces)}", found)
        for key, child in space.spaces.items():
            _flatten(child, observation[key], _child(name, key), rows)
    elif isinstance(space, spaces.Tuple):
        if not isinstance(observation, tuple | list) or len(observation) != len(space.spaces):
            raise _misfit(name, f"a tuple of {len(space.spaces)}", f"{observation!r:.60}")
        for index, child in enumerate(space.spaces):
            _flatten(child, observation[index], _child(name, str(index)), rows)
    elif is_text(space):
        rows[name] = _text_row(space, observation, name)
    else:
        rows[name] = _array_row(space, observation, name)


def _array_row(space: Space, observation: Any, name: str) -> NDArray[Any]:
    if type(observation) is np.ndarray and observation.dtype == space.dtype and observation.shape == space.shape:
        return observation
    dtype, shape = _column(space)
    row = np.asarray(observation)
    if row.shape != shape:
        raise _misfit(name, f"shape {shape}", f"shape {row.shape}")
    # Python's numbers and lists of them come as int64 and float64, whatever the space says.
    if not (np.can_cast(row.dtype, dtype, "same_kind") or _keeps_integers(row, dtype)):
        raise _misfit(name, f"dtype {dtype}", f"dtype {row.dtype}")
    return row.astype(dtype)


def _keeps_integers(row: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    return row.dtype.kind in "iub" and dtype.kind in "iub" and bool((row.astype(dtype) == row).all())


def _text_row(space: Space, observation: Any, name: str) -> NDArray[Any]:
    longest = text_length(space)
    if not isinstance(observation, str) or len(observation) > longest:
        raise _misfit(name, f"a text of up to {longest} characters", f"{observation!r:.60}")
    return np.asarray(observation, dtype=f"<U{longest}")


def _misfit(name: str, expected: str, found: str) -> EnvironmentNotUsableError:
    return EnvironmentNotUsableError(
        f"The environment returned an observation that doesn't fit its observation space ({name}): the space says "
        f"{expected}, it returned {found}. Correct the space or the observation."
    )
