"""Spaces as JSON and back, and which spaces are supported.

How observations become columns is in :mod:`rlhfblender_core.environments.observations`, labels of actions are in
:mod:`rlhfblender_core.environments.actions`.
"""

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any, TypeAlias, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlhfblender_core.environments.spec import JSONValue
from rlhfblender_core.errors import EnvironmentNotUsableError, InvalidParameterError

Space: TypeAlias = "spaces.Space[Any]"
SpaceDescription: TypeAlias = dict[str, JSONValue]

#: Characters kept for texts of spaces that don't say how long they get, such as MiniGrid's missions.
DEFAULT_TEXT_LENGTH = 256

_OBSERVATIONS = "Box, Discrete, MultiDiscrete, MultiBinary, Text, Dict and Tuple"
_ACTION_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_NON_FINITE = {np.inf: "inf", -np.inf: "-inf"}


@singledispatch
def describe_space(space: Space) -> SpaceDescription:
    """The space as a JSON object, from which :func:`space_from_description` makes an equal one.

    ========================  ============================================================================
    ``type``                  further keys
    ========================  ============================================================================
    ``Box``                   ``shape``, ``dtype``, ``low``, ``high``
    ``Discrete``              ``shape`` ``[]``, ``dtype``, ``n``, ``start``
    ``MultiDiscrete``         ``shape``, ``dtype``, ``nvec``, ``start`` (nested lists)
    ``MultiBinary``           ``shape``, ``dtype``, ``n`` (a number, or a list for several axes)
    ``Text``                  ``min_length``, ``max_length``, ``charset`` (null where it isn't known)
    ``Dict``                  ``spaces``: name to description
    ``Tuple``                 ``spaces``: list of descriptions
    ========================  ============================================================================

    Bounds of a Box are nested lists of its shape, or one number where all are equal (a picture has 100,000);
    infinite ones are the texts ``"inf"`` and ``"-inf"``.

    Raises:
        EnvironmentNotUsableError: a space of another kind.
    """
    if is_text(space):
        return {"type": "Text", "min_length": 0, "max_length": text_length(space), "charset": None}
    raise EnvironmentNotUsableError(
        f"Spaces of type {type(space).__name__} are not supported; {_OBSERVATIONS} are. "
        "Give an entry point of your own (--env-gym-entrypoint) that returns the environment in "
        "gymnasium.wrappers.TransformObservation(env, function, observation_space)."
    )


@describe_space.register
def _(space: spaces.Box) -> SpaceDescription:
    return {"type": "Box", **_array_facts(space), "low": _bounds(space.low), "high": _bounds(space.high)}


@describe_space.register
def _(space: spaces.Discrete) -> SpaceDescription:
    return {"type": "Discrete", **_array_facts(space), "n": int(space.n), "start": int(space.start)}


@describe_space.register
def _(space: spaces.MultiDiscrete) -> SpaceDescription:
    return {
        "type": "MultiDiscrete",
        **_array_facts(space),
        "nvec": space.nvec.tolist(),
        "start": space.start.tolist(),
    }


@describe_space.register
def _(space: spaces.MultiBinary) -> SpaceDescription:
    n: JSONValue = list(space.n) if isinstance(space.n, tuple) else int(space.n)
    return {"type": "MultiBinary", **_array_facts(space), "n": n}


@describe_space.register
def _(space: spaces.Text) -> SpaceDescription:
    return {
        "type": "Text",
        "min_length": space.min_length,
        "max_length": space.max_length,
        "charset": "".join(space.character_list),
    }


@describe_space.register
def _(space: spaces.Dict) -> SpaceDescription:
    for key in space.spaces:
        if not isinstance(key, str):
            raise EnvironmentNotUsableError(f"A Dict space has the key {key!r}. Its keys have to be texts.")
    return {"type": "Dict", "spaces": {key: describe_space(child) for key, child in space.spaces.items()}}


@describe_space.register(spaces.Tuple)
def _(space: "spaces.Tuple[Any]") -> SpaceDescription:
    return {"type": "Tuple", "spaces": [describe_space(child) for child in space.spaces]}


def space_from_description(description: Mapping[str, JSONValue]) -> Space:
    """The space that :func:`describe_space` described.

    Raises:
        InvalidParameterError: it is no description of a space.
    """
    try:
        return _MAKERS[str(description["type"])](cast("dict[str, Any]", description))
    except (KeyError, TypeError, ValueError, OverflowError, AssertionError) as error:
        raise InvalidParameterError(f"This is no description of a space: {description!r:.200}") from error


def check_supported(observation_space: object, action_space: object) -> None:
    """Checks that episodes of these spaces can be stored.

    Raises:
        EnvironmentNotUsableError: a space is missing or of an unsupported kind.
    """
    describe_space(_checked_space(observation_space, "observation"))
    _checked_space(action_space, "action")
    if not isinstance(action_space, _ACTION_SPACES):
        names = ", ".join(kind.__name__ for kind in _ACTION_SPACES)
        raise EnvironmentNotUsableError(
            f"Action spaces of type {type(action_space).__name__} are not supported; {names} are. "
            "Give an entry point of your own (--env-gym-entrypoint) that returns the environment in "
            "gymnasium.wrappers.TransformAction(env, function, action_space)."
        )


def _checked_space(space: object, what: str) -> Space:
    if isinstance(space, spaces.Space):
        return space
    raise EnvironmentNotUsableError(
        f"The environment's {what}_space is {space!r:.60}, not a Gymnasium space. Set it in its constructor."
    )


def is_text(space: Space) -> bool:
    """Whether observations are texts: Gymnasium's Text, or a space of its own like MiniGrid's missions."""
    return isinstance(space, spaces.Text) or (space.dtype is not None and np.dtype(space.dtype).kind == "U")


def text_length(space: Space) -> int:
    """Characters that the longest text of a text space may have."""
    return max(1, space.max_length) if isinstance(space, spaces.Text) else DEFAULT_TEXT_LENGTH


def _array_facts(space: Space) -> SpaceDescription:
    return {"shape": list(space.shape or ()), "dtype": str(np.dtype(space.dtype))}


def _bounds(bounds: NDArray[Any]) -> JSONValue:
    if bounds.size and (bounds == bounds.flat[0]).all():
        return _bound(bounds.flat[0].item())
    return _nested(bounds.tolist())


def _nested(bounds: Any) -> JSONValue:
    return [_nested(bound) for bound in bounds] if isinstance(bounds, list) else _bound(bounds)


def _bound(bound: float) -> JSONValue:
    return _NON_FINITE.get(bound, bound)


def _make_box(description: dict[str, Any]) -> Space:
    shape, dtype = tuple(description["shape"]), np.dtype(description["dtype"])
    low, high = (np.broadcast_to(_as_array(description[side], dtype), shape) for side in ("low", "high"))
    return spaces.Box(low.copy(), high.copy(), shape, dtype=dtype)


def _as_array(bounds: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    # float() reads "inf"; integers must not pass through it, as it holds 53 bits of their 64.
    def read(bound: Any) -> Any:
        if isinstance(bound, list):
            return [read(item) for item in bound]
        return float(bound) if isinstance(bound, str) else bound

    return np.asarray(read(bounds), dtype=dtype)


def _make_multi_discrete(description: dict[str, Any]) -> Space:
    dtype = np.dtype(description["dtype"])
    nvec, start = (np.asarray(description[key], dtype=dtype) for key in ("nvec", "start"))
    return spaces.MultiDiscrete(nvec, dtype=dtype, start=start)


def _make_text(description: dict[str, Any]) -> Space:
    charset = {} if description["charset"] is None else {"charset": description["charset"]}
    return spaces.Text(description["max_length"], min_length=description["min_length"], **charset)


_MAKERS: dict[str, Callable[[dict[str, Any]], Space]] = {
    "Box": _make_box,
    "Discrete": lambda d: spaces.Discrete(d["n"], start=d["start"], dtype=np.dtype(d["dtype"])),
    "MultiDiscrete": _make_multi_discrete,
    "MultiBinary": lambda d: spaces.MultiBinary(d["n"]),
    "Text": _make_text,
    # As pairs: the keys of a mapping would be sorted.
    "Dict": lambda d: spaces.Dict([(key, space_from_description(child)) for key, child in d["spaces"].items()]),
    "Tuple": lambda d: spaces.Tuple([space_from_description(child) for child in d["spaces"]]),
}
