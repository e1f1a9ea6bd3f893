"""What a caller in Python gave, against the types of the parameters: a line that says so, before it is odd elsewhere.

The types are those that the signatures say; nothing is coerced but a ``Path`` to its text and numpy's integers to
Python's. What may be in a dictionary is for whoever reads it.
"""

import functools
import inspect
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, SupportsIndex, TypeVar, Union, get_args, get_origin

from rlhfblender_core.errors import WrongTypeError

P = ParamSpec("P")
R = TypeVar("R")

_NAMES = {str: "text", int: "whole number", float: "number"}
#: What doesn't fit a type becomes this.
_WRONG = object()


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """The function, its arguments checked at each call; annotations in quotes aren't read.

    Raises:
        WrongTypeError: (at a call) one is of another type than its annotation.
    """
    signature = inspect.signature(function)
    hints = {name: hint for name, hint in function.__annotations__.items() if not isinstance(hint, str)}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        for name in [name for name in bound.arguments if name in hints]:
            bound.arguments[name] = as_type(name, bound.arguments[name], hints[name])
        return function(*bound.args, **bound.kwargs)

    return call


def check_fields(record: Any) -> None:
    """Checks the fields of a dataclass, for its ``__post_init__``.

    Raises:
        WrongTypeError: one is of another type than its annotation.
    """
    for field in fields(record):
        object.__setattr__(record, field.name, as_type(field.name, getattr(record, field.name), field.type))


def as_type(name: str, value: Any, hint: Any) -> Any:
    """The value, as the type that is asked for.

    Args:
        name: of the argument.
        value: what was given.
        hint: its annotation.

    Raises:
        WrongTypeError: it is of another type.
    """
    for kind in _kinds(hint):
        fitting = _fitting(value, kind)
        if fitting is not _WRONG:
            return fitting
    raise WrongTypeError(f"{name} is {_words(hint)}, not {value!r:.80}.")


def place_in(index: Any, size: int, what: str) -> int:
    """The place in a sequence that an index means; from the end where it is negative.

    Args:
        index: what was given in brackets.
        size: of the sequence.
        what: it holds, one of them: ``episode``.

    Raises:
        IndexError: there is no such place.
        TypeError: it is no whole number.
    """
    try:
        return range(size)[operator.index(index)]
    except TypeError:
        raise TypeError(f"An index of {what}s is a whole number, not {index!r:.80}.") from None
    except IndexError:
        there = f"{size:,}, 0 to {size - 1}" if size else "none"
        raise IndexError(f"There is no {what} {index}; there are {there}.") from None


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fitting(value: Any, kind: Any) -> Any:
    origin = get_origin(kind) or kind
    if origin is Literal:
        return value if isinstance(value, str) and value in get_args(kind) else _WRONG
    if origin is str and isinstance(value, os.PathLike):
        path = os.fspath(value)
        return path if isinstance(path, str) else _WRONG
    if origin in (int, float):
        return _number(value, origin)
    if origin is Sequence:
        return _sequence(value, *get_args(kind))
    if origin is Callable:
        return value if callable(value) else _WRONG
    return value if origin is Any or isinstance(value, origin) else _WRONG


def _number(value: Any, kind: type) -> Any:
    if isinstance(value, bool):
        return _WRONG
    if isinstance(value, SupportsIndex):
        try:
            return operator.index(value)
        except TypeError:  # an array of several
            return _WRONG
    return value if kind is float and isinstance(value, float) else _WRONG


def _sequence(value: Any, item: Any) -> Any:
    """A text is a sequence of texts to Python, and to nobody else."""
    if isinstance(value, (str, bytes, Mapping)):
        return _WRONG
    try:
        items = value if isinstance(value, Sequence) else list(value)
    except TypeError:
        return _WRONG
    are_fitting = all(any(_fitting(each, kind) is not _WRONG for kind in _kinds(item)) for each in items)
    return items if are_fitting else _WRONG


def _words(hint: Any) -> str:
    return " or ".join(dict.fromkeys(map(_word, _kinds(hint))))


def _word(kind: Any) -> str:
    origin = get_origin(kind) or kind
    if origin is NoneType:
        return "None"
    if origin is bool:
        return "True or False"
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if origin is Sequence:
        items = " or ".join(f"{_NAMES.get(each, each.__name__)}s" for each in _kinds(get_args(kind)[0]))
        return f"a list of {items}"
    words = {Mapping: "a dictionary", dict: "a dictionary", Callable: "a function", os.PathLike: "a path"}
    return words.get(origin) or f"a {_NAMES.get(origin, origin.__name__)}"
