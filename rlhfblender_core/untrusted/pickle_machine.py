"""The machine that carries out a pickle's opcodes; what it may be used for is in :mod:`.pickles`.

Opcodes and their arguments: Python's pickletools.
"""

import io
import pickletools
from collections.abc import Callable
from typing import Any

from rlhfblender_core.untrusted import limits
from rlhfblender_core.untrusted.allow_list import Name
from rlhfblender_core.untrusted.placeholders import Builder, DamagedPickleError, Placeholder, checked_key

Lookup = Callable[[Name], Any]
Persistent = Callable[[Any], Any]


def run_pickle(stream: io.BytesIO, lookup: Lookup, persistent: Persistent | None, work: int) -> Any:
    """The value of the pickle at the stream's position, which is afterwards right behind it.

    Args:
        stream: at the start of a pickle.
        lookup: gives what stands for a (module, name).
        persistent: gives what stands for a persistent id; None where there may be none.
        work: opcodes and copies that the pickle may take.

    Raises:
        DamagedPickleError: it takes more, or is no intact pickle; damaged ones raise Python's own errors, too.
        RefusedPickleError: from ``lookup`` or a placeholder.
    """
    return _Machine(lookup, persistent, work).run(stream)


class _Machine:
    """The stack, the marks on it and the memo of one pickle."""

    def __init__(self, lookup: Lookup, persistent: Persistent | None, work: int) -> None:
        self._lookup = lookup
        self._persistent = persistent
        self._left = work
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """The value that the pickle leaves."""
        for opcode, argument, _ in pickletools.genops(stream):
            self._spend(1)
            name = opcode.name
            if name in _CONSTANTS:
                self._push_number(argument) if type(argument) is int else self.stack.append(argument)
            elif name == "STOP":
                break
            else:
                step = _STEPS.get(name)
                if step is None:
                    raise DamagedPickleError(f"an opcode {name}")
                step(self, argument)
        return self._pop()

    def _spend(self, work: int) -> None:
        self._left -= work
        if self._left < 0:
            raise DamagedPickleError("it unfolds to far more than it has bytes")

    def _push_number(self, number: int) -> None:
        if number.bit_length() > limits.MAX_INTEGER_BITS:
            raise DamagedPickleError("a number of very many digits")
        self.stack.append(number)

    def _pop(self) -> Any:
        if len(self.stack) <= (self._marks[-1] if self._marks else 0):
            raise DamagedPickleError("it takes more than it has")
        return self.stack.pop()

    def _top(self, kind: type[Any]) -> Any:
        """What lies on top and stays there."""
        value = self._pop()
        if not isinstance(value, kind):
            raise DamagedPickleError(f"it changes a {type(value).__name__}")
        self.stack.append(value)
        return value

    def _marked(self) -> list[Any]:
        """What lies above the last mark; both are removed."""
        if not self._marks:
            raise DamagedPickleError("a mark is missing")
        start = self._marks.pop()
        above = self.stack[start:]
        del self.stack[start:]
        return above

    def mark(self, _: object) -> None:
        self._marks.append(len(self.stack))

    def pop(self, _: object) -> None:
        if self._marks and self._marks[-1] == len(self.stack):
            self._marks.pop()
        else:
            self._pop()

    def pop_mark(self, _: object) -> None:
        self._marked()

    def duplicate(self, _: object) -> None:
        self.stack += [self._pop()] * 2

    def memoize(self, index: int | None) -> None:
        value = self._pop()
        self._memo[len(self._memo) if index is None else index] = value
        self.stack.append(value)

    def recall(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def empty_list(self, _: object) -> None:
        self.stack.append([])

    def empty_dict(self, _: object) -> None:
        self.stack.append({})

    def empty_set(self, _: object) -> None:
        self._spend(3)  # a set takes four times a list's memory
        self.stack.append(set())

    def make_tuple(self, _: object) -> None:
        self.stack.append(tuple(self._marked()))

    def make_short_tuple(self, length: int) -> None:
        parts = [self._pop() for _ in range(length)]
        self.stack.append(tuple(reversed(parts)))

    def make_list(self, _: object) -> None:
        self.stack.append(self._marked())

    def make_dict(self, _: object) -> None:
        parts = self._marked()
        self.stack.append({})
        self._set_items(parts)

    def make_frozenset(self, _: object) -> None:
        self._spend(3)
        self.stack.append(frozenset(map(checked_key, self._marked())))

    def append(self, _: object) -> None:
        value = self._pop()
        self._top(list).append(value)

    def extend(self, _: object) -> None:
        values = self._marked()
        self._top(list).extend(values)

    def add_items(self, _: object) -> None:
        values = self._marked()
        self._top(set).update(map(checked_key, values))

    def set_item(self, _: object) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def set_items(self, _: object) -> None:
        self._set_items(self._marked())

    def _set_items(self, parts: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            target[checked_key(key)] = value

    def name_in_text(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.stack.append(self._lookup((module, name)))

    def name_on_stack(self, _: object) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise DamagedPickleError("a name that is no text")
        self.stack.append(self._lookup((module, name)))

    def make_named(self, argument: str) -> None:
        args = tuple(self._marked())
        self.name_in_text(argument)
        self._call(self._pop(), args)

    def make_marked(self, _: object) -> None:
        kind, *args = self._marked()
        self._call(kind, tuple(args))

    def call(self, _: object) -> None:
        args, function = self._pop(), self._pop()
        self._call(function, args)

    def call_with_keywords(self, _: object) -> None:
        kwargs, args, function = self._pop(), self._pop(), self._pop()
        self._call(function, args, kwargs)

    def _call(self, function: Any, args: Any, kwargs: Any = None) -> None:
        if not isinstance(args, tuple) or not isinstance(kwargs, dict | None):
            raise DamagedPickleError("a call without arguments")
        if isinstance(function, Builder) and not kwargs:
            # The same list or text could be given to it again and again.
            self._spend(sum(len(arg) for arg in args if isinstance(arg, list | tuple | dict | set | str | bytes)))
            self.stack.append(function.make(*args))
        elif isinstance(function, type) and issubclass(function, Placeholder):
            self.stack.append(function.made(args, kwargs or {}))
        else:
            raise DamagedPickleError(f"it calls a {type(function).__name__}")

    def build(self, _: object) -> None:
        state = self._pop()
        # An OrderedDict's state are attributes beside its entries, which nobody needs.
        target = self._top(Placeholder | dict)  # type: ignore[arg-type]  # isinstance takes a union
        if isinstance(target, Placeholder):
            target.build(state)

    def refer(self, _: object) -> None:
        self.refer_to(self._pop())

    def refer_to(self, identity: Any) -> None:
        if self._persistent is None:
            raise DamagedPickleError("it refers to something outside")
        self.stack.append(self._persistent(identity))

    def nothing(self, _: object) -> None:
        """Protocol numbers and frames, which pickletools has read."""


#: Opcodes that push their argument.
_CONSTANTS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)

_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.nothing,
    "FRAME": _Machine.nothing,
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_mark,
    "DUP": _Machine.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    "EMPTY_LIST": _Machine.empty_list,
    "EMPTY_DICT": _Machine.empty_dict,
    "EMPTY_SET": _Machine.empty_set,
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE": _Machine.make_tuple,
    "TUPLE1": lambda machine, _: machine.make_short_tuple(1),
    "TUPLE2": lambda machine, _: machine.make_short_tuple(2),
    "TUPLE3": lambda machine, _: machine.make_short_tuple(3),
    "LIST": _Machine.make_list,
    "DICT": _Machine.make_dict,
    "FROZENSET": _Machine.make_frozenset,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "ADDITEMS": _Machine.add_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.name_in_text,
    "STACK_GLOBAL": _Machine.name_on_stack,
    "INST": _Machine.make_named,
    "OBJ": _Machine.make_marked,
    "REDUCE": _Machine.call,
    "NEWOBJ": _Machine.call,
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.refer,
    "PERSID": _Machine.refer_to,
}
