"""What an environment is made from, in a form that travels: to worker processes, into the registry, into digests.

Nothing here imports Gymnasium or makes anything; that is :mod:`rlhfblender_core.environments.make`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from rlhfblender_core.errors import InvalidParameterError

JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"

#: Python writes no integers of very many digits into JSON or a message, but raises.
_MOST_BITS = 1024
#: Lists in lists: far below what Python's own recursion can walk, which everything that reads such a value has to.
_MOST_DEPTH = 32
#: Keyword arguments that belong to Gymnasium's registration, not to the environment's constructor.
SPEC_KWARGS = (
    "disable_env_checker",
    "max_episode_steps",
    "nondeterministic",
    "order_enforce",
    "reward_threshold",
)


@dataclass(frozen=True)
class EnvironmentSpec:
    """An environment's id and everything needed to make it in another process.

    Keyword arguments are stored sorted by name and as JSON values, so equal specs have equal JSON texts.

    Attributes:
        env_id: Gymnasium id (``CartPole-v1``, ``ALE/Pong-v5``, ``module:Id-v0``).
        entry_point: ``module:Class`` of a custom environment; None for an id that a package registers.
        additional_packages: modules imported before the environment is made, in this order.
        kwargs: keyword arguments of the constructor.
        spec_kwargs: keyword arguments of the registration, see :data:`SPEC_KWARGS`.

    Raises:
        InvalidParameterError: a keyword argument that is no JSON value, or is in the wrong group, or has the wrong
            type for the registration.
    """

    env_id: str
    entry_point: str | None = None
    additional_packages: tuple[str, ...] = ()
    # Dictionaries can't be hashed; equality still compares them.
    kwargs: Mapping[str, JSONValue] = field(default_factory=dict, hash=False)
    spec_kwargs: Mapping[str, JSONValue] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "additional_packages", tuple(self.additional_packages))
        _check_texts(self.env_id, self.entry_point, self.additional_packages)
        for name in ("kwargs", "spec_kwargs"):
            given: Mapping[str, object] = getattr(self, name)
            if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
                raise InvalidParameterError(f"Keyword arguments are names with values, not {given!r:.80}.")
            object.__setattr__(self, name, {key: as_json_value(given[key], key) for key in sorted(given)})
        for key, value in self.spec_kwargs.items():
            _check_spec_kwarg(key, value)
        misplaced = [key for key in self.kwargs if key in SPEC_KWARGS]
        if misplaced:
            raise InvalidParameterError(
                f"{', '.join(misplaced)} belongs to the environment's registration, not to its constructor: "
                "use split_env_kwargs."
            )

    def to_json(self) -> dict[str, JSONValue]:
        """A JSON object with sorted keys: the same spec gives the same text."""
        return {
            "additional_packages": list(self.additional_packages),
            "entry_point": self.entry_point,
            "env_id": self.env_id,
            "kwargs": dict(self.kwargs),
            "spec_kwargs": dict(self.spec_kwargs),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, JSONValue]) -> "EnvironmentSpec":
        """The inverse of :meth:`to_json`: ``from_json(spec.to_json()) == spec``.

        Raises:
            InvalidParameterError: the document isn't one of :meth:`to_json`.
        """
        try:
            return cls(
                env_id=str(document["env_id"]),
                entry_point=cast("str | None", document["entry_point"]),
                additional_packages=tuple(cast("list[str]", document["additional_packages"])),
                kwargs=dict(cast("dict[str, JSONValue]", document["kwargs"])),
                spec_kwargs=dict(cast("dict[str, JSONValue]", document["spec_kwargs"])),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidParameterError(f"This is no environment specification: {document!r:.200}") from error


def _check_texts(env_id: object, entry_point: object, packages: tuple[object, ...]) -> None:
    # A registry's and a manifest's JSON can hold anything.
    for what, value in (("id", env_id), *(("package", package) for package in packages)):
        if not isinstance(value, str):
            raise InvalidParameterError(f"An environment's {what} is a text, not {value!r:.80}.")
    if not isinstance(entry_point, str | None):
        raise InvalidParameterError(f"An environment's entry point is a text, not {entry_point!r:.80}.")


def split_env_kwargs(kwargs: Mapping[str, JSONValue]) -> tuple[dict[str, JSONValue], dict[str, JSONValue]]:
    """The keyword arguments of the constructor and those of the registration (:data:`SPEC_KWARGS`)."""
    constructor = {key: value for key, value in kwargs.items() if key not in SPEC_KWARGS}
    registration = {key: value for key, value in kwargs.items() if key in SPEC_KWARGS}
    return constructor, registration


def as_json_value(value: object, name: str, depth: int = _MOST_DEPTH) -> JSONValue:
    """The value with tuples as lists, so that it is the same before and after being stored as JSON.

    Args:
        value: of the keyword argument.
        name: its name.
        depth: how deeply it may be nested.

    Raises:
        InvalidParameterError: JSON can't hold it (a set, bytes, an infinite number, a key that is no text), or it is
            nested too deeply.
    """
    if not depth:
        raise InvalidParameterError(f"The value of {name!r:.60} is nested too deeply.")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise InvalidParameterError(f"The value of {name!r:.60} is a whole number of very many digits.")
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [as_json_value(item, name, depth - 1) for item in cast("Sequence[object]", value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: as_json_value(value[key], name, depth - 1) for key in sorted(value)}
    raise InvalidParameterError(
        f"The value of {name!r:.60} can't be stored as JSON: {value!r:.60}. Use numbers, text, True, False, None, "
        "lists and dictionaries with text keys."
    )


def _check_spec_kwarg(key: str, value: JSONValue) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "max_episode_steps":
        fits = value is None or (isinstance(value, int) and is_number and value > 0)
        expected = "a positive whole number, or None for no limit"
    elif key == "reward_threshold":
        fits, expected = value is None or is_number, "a number or None"
    elif key in SPEC_KWARGS:
        fits, expected = isinstance(value, bool), "True or False"
    else:
        raise InvalidParameterError(f"{key!r} is no argument of a registration; those are {', '.join(SPEC_KWARGS)}.")
    if not fits:
        raise InvalidParameterError(f"{key} must be {expected}, not {json.dumps(value):.60}.")
