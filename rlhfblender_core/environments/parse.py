"""Keyword arguments of environments as people write them on a command line."""

import ast
import warnings
from collections.abc import Sequence

from rlhfblender_core.environments.spec import JSONValue, as_json_value
from rlhfblender_core.errors import InvalidParameterError

#: Set by this project itself, so giving it would be overridden or contradict another flag.
_RESERVED = {"render_mode": "it follows from --no-render"}


def parse_env_kwargs(items: Sequence[str], flag: str = "--env-kwargs") -> dict[str, JSONValue]:
    """Keyword arguments from ``key:value`` texts, split at the first colon.

    A value that is a Python literal becomes that literal, any other is text: ``size:5`` is a number, ``map:4x4`` and
    ``difficulty:'hard'`` are texts. What is returned can be stored as JSON and comes back the same; tuples become
    lists for that.

    Args:
        items: the texts.
        flag: for which they were given.

    Raises:
        InvalidParameterError: no colon, a key that is no Python name or comes twice, or a literal that JSON can't
            hold (a set, bytes, …; to mean the text, quote it).
    """
    parsed: dict[str, JSONValue] = {}
    for item in items:
        key, colon, text = item.partition(":")
        key = key.strip()
        if not colon:
            raise InvalidParameterError(f"{flag} expects key:value, got {item!r:.80}. Example: size:5")
        if not key.isidentifier():
            raise InvalidParameterError(f"{flag} expects a name before the colon, got {item!r:.80}. Example: size:5")
        if flag == "--env-kwargs" and key in _RESERVED:
            raise InvalidParameterError(f"{flag} can't set {key}: {_RESERVED[key]}.")
        if key in parsed:
            raise InvalidParameterError(f"{flag} has {key!r} twice. Give it once.")
        parsed[key] = as_json_value(_literal(text), key)
    return parsed


def _literal(text: str) -> object:
    try:
        with warnings.catch_warnings():
            # Texts such as "1is" or "'\d'" make Python's parser warn.
            warnings.simplefilter("ignore")
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def env_kwarg_text(name: str, value: JSONValue) -> str:
    """The inverse of :func:`parse_env_kwargs`, for one keyword argument: ``size:5``."""
    is_plain = isinstance(value, str) and value.isprintable() and _literal(value) == value
    return f"{name}:{value}" if is_plain else f"{name}:{value!r}"
