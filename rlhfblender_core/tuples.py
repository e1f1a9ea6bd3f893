"""Keyword arguments that came through JSON, which has no tuples, in the forms that a constructor may insist on."""

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

#: Lists in keyword arguments, of which each may have to be a tuple: of more, all are.
_MOST_LISTS = 4


def tuple_forms(kwargs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keyword arguments as they are, then with tuples for all lists at every depth, then for some of them.

    JSON has no tuples, and some constructors insist on them: the Atari games' frameskip, highway-env's shapes. Each
    form is a copy: environments may change what they are given.
    """
    lists = _count_lists(kwargs)
    if lists == 0:
        return [copy.deepcopy(dict(kwargs))]
    choices = itertools.product((True, False), repeat=lists) if lists <= _MOST_LISTS else [(True,) * lists]
    forms = [choice for choice in choices if any(choice)]
    return [copy.deepcopy(dict(kwargs)), *(_with_tuples(kwargs, iter(form)) for form in forms)]


def _count_lists(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(map(_count_lists, value.values()))
    return 1 + sum(map(_count_lists, value)) if isinstance(value, list) else 0


def _with_tuples(value: object, choices: Iterator[bool]) -> Any:
    """A copy in which those lists are tuples for which the next choice says so."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item, choices) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    kind = tuple if next(choices) else list
    return kind([_with_tuples(item, choices) for item in value])
