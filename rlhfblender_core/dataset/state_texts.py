"""States of environments that are objects (MiniGrid's grids, copies of attributes) as texts, and the way back.

A text is JSON: what JSON has no word for is a dictionary with one key (``tuple``, ``array``, ``object`` …). What may be
an object is in one table, so that a text of others makes nothing else; ALE's states stay out, which its emulator's own
reader would have to be trusted with.
"""

import base64
import importlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.untrusted.json_values import parse_json
from rlhfblender_core.untrusted.placeholders import DamagedPickleError, Placeholder, RefusedPickleError
from rlhfblender_core.untrusted.plain_values import STATE_CLASSES, array_of, object_name

#: By this a text is known as one of ours.
_START = '{"state":'
#: Of one state: Taxi's table of moves, which is in each, has more.
_MOST_BYTES = 100_000
_GENERATOR = ("numpy.random._pickle", "__generator_ctor")
_NAMES = {".".join(name): name for name in STATE_CLASSES}


def state_text(state: Any) -> str:
    """A state as read from others' files, with placeholders, as a text.

    Raises:
        RefusedPickleError: it holds an object that isn't in the table.
        DamagedPickleError: it is no state of its kind, or too large.
    """
    text = json.dumps({"state": _encoded(state)}, separators=(",", ":"))
    if len(text) > _MOST_BYTES:
        raise DamagedPickleError(f"a state has {len(text):,} bytes; at most {_MOST_BYTES:,} are kept")
    return text


def is_state_text(value: object) -> bool:
    """Whether it is a text of :func:`state_text`."""
    return isinstance(value, str) and value.startswith(_START)


def state_of(text: str) -> Any:
    """The state that a text holds, in the classes of today.

    Raises:
        DataNotUsableError: it is no such text, or the package isn't installed that a class of the table is from.
    """
    try:
        return _decoded(parse_json(text, _MOST_BYTES)["state"])
    except ImportError as error:
        raise DataNotUsableError(f"its states need a package that isn't installed ({error})") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataNotUsableError(f"its states are damaged ({str(error)[:100]})") from error


def _encoded(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, list):
        return [_encoded(part) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [_encoded(part) for part in value]}
    if isinstance(value, dict):
        return {"dict": [[_encoded(key), _encoded(part)] for key, part in value.items()]}
    if isinstance(value, Placeholder):
        return _encoded_placeholder(value)
    raise RefusedPickleError(object_name(value))


def _encoded_placeholder(value: Placeholder) -> Any:
    array = array_of(value)
    if array is not None:
        return {"array": [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode()]}
    if value.origin == _GENERATOR and value.args and isinstance(value.args[0], Placeholder):
        return {"generator": _encoded(value.args[0].state)}
    if value.origin not in STATE_CLASSES:
        raise RefusedPickleError(object_name(value))
    if value.args or not isinstance(value.state, dict):
        raise DamagedPickleError(f"a {value.origin[1]} without attributes")
    return {"object": [".".join(value.origin), _encoded(value.state)]}


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    return _DECODERS[kind](content)


def _object(content: Any) -> Any:
    name, attributes = content
    module, class_name = _NAMES[name]
    cls = getattr(importlib.import_module(module), class_name)
    made = cls.__new__(cls)
    vars(made).update(**_decoded(attributes))
    return made


def _array(content: Any) -> Any:
    code, shape, encoded = content
    array = np.frombuffer(base64.b64decode(encoded), np.dtype(str(code))).reshape(shape).copy()
    return array if shape else array[()]


def _generator(content: Any) -> np.random.Generator:
    generator = np.random.Generator(np.random.PCG64(0))
    generator.bit_generator.state = _decoded(content)
    return generator


_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "float": float,
    "tuple": lambda content: tuple(_decoded(content)),
    "dict": lambda content: {_decoded(key): _decoded(part) for key, part in content},
    "array": _array,
    "generator": _generator,
    "object": _object,
}
