"""Keyword arguments that came through JSON, which has no tuples, in the forms that a constructor may insist on."""

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

#: Lists in keyword arguments, of which each may have to be a tuple: of more, those of the same depth are the same.
_MOST_LISTS = 4


def tuple_forms(kwargs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keyword arguments as they are, then with tuples for all lists at every depth, then for some of them.

    JSON has no tuples, and some constructors insist on them: the Atari games' frameskip, highway-env's shapes. Each
    form is a copy: environments may change what they are given.
    """
    depths = list(_depths_of_lists(kwargs, 0))
    if not depths:
        return [copy.deepcopy(dict(kwargs))]
    # A list of many points, each a tuple, is told from a tuple of lists by the depth.
    kinds = (
        list(range(len(depths))) if len(depths) <= _MOST_LISTS else [min(depth, _MOST_LISTS - 1) for depth in depths]
    )
    choices = itertools.product((True, False), repeat=max(kinds) + 1)
    forms = list(dict.fromkeys(tuple(choice[kind] for kind in kinds) for choice in choices))
    forms = [form for form in forms if any(form)]
    return [copy.deepcopy(dict(kwargs)), *(_with_tuples(kwargs, iter(form)) for form in forms)]


def _depths_of_lists(value: object, depth: int) -> Iterator[int]:
    """In how many lists each list lies, in the order in which :func:`_with_tuples` comes to them."""
    if isinstance(value, list):
        yield depth
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in parts:
        yield from _depths_of_lists(part, depth + isinstance(value, list))


def _with_tuples(value: object, choices: Iterator[bool]) -> Any:
    """A copy in which those lists are tuples for which the next choice says so."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item, choices) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    kind = tuple if next(choices) else list
    return kind([_with_tuples(item, choices) for item in value])
