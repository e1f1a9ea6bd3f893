"""The language of ``--where``: a condition on an episode, such as ``return > 100 and length < 500``.

It is read by Python's parser and an allow-list of its nodes, and never evaluated by Python: whatever the text says,
only the fields in :data:`FIELDS` are looked at. What isn't known of an episode (the seed of an imported one, a return
that is NaN, a quotient by 0) makes a comparison unknown, as in SQL: neither it nor its opposite chooses the episode.
"""

import ast
import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.registry import EpisodeRecord

_Value = int | float | str | bool | None
_Reader = Callable[[EpisodeRecord], _Value]


@dataclass(frozen=True)
class _Term:
    """A part of a condition: how its value is had, and what it may be compared with."""

    kinds: frozenset[str]
    read: _Reader


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _label(label: str) -> int | str:
    """A checkpoint's label, as the number of steps where it is one."""
    return int(label) if label.isascii() and label.isdigit() else label


_NUMBER, _TEXT, _FLAG = frozenset(["a number"]), frozenset(["a text"]), frozenset(["true or false"])
_LABEL = _NUMBER | _TEXT

#: What a condition may name, and how an episode's record tells it.
FIELDS: Mapping[str, _Term] = {
    "return": _Term(_NUMBER, lambda record: _known(record.episode_return)),
    "length": _Term(_NUMBER, lambda record: record.episode_length),
    "number": _Term(_NUMBER, lambda record: record.number),
    "seed": _Term(_NUMBER, lambda record: record.seed),
    "checkpoint": _Term(_LABEL, lambda record: _label(record.checkpoint)),
    "experiment": _Term(_TEXT, lambda record: record.experiment),
    "terminated": _Term(_FLAG, lambda record: record.terminated),
    "truncated": _Term(_FLAG, lambda record: record.truncated),
}
#: As the arrays, the library and the registry call some of them.
_ALIASES = {"episode_return": "return", "episode_length": "length", "episode": "number"}
#: ``return`` can't be a name in Python.
_RETURN = "episode_return"
_IN_PYTHON = {"return": _RETURN, "true": "True", "false": "False", "and": "and", "or": "or", "not": "not", "in": "in"}

_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}

#: Nobody types more, and the parser's recursion stays shallow.
_LONGEST = 1000
_DEEPEST = 50
#: Characters of a refused condition that are repeated.
_SHOWN = 100
#: A text, a number, a name, an operator, or what separates them; a number doesn't touch a name.
_TOKEN = re.compile(
    r"""\s+ | '[^'\\\n]*' | "[^"\\\n]*" | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]) | [A-Za-z_]\w*(?!['"])
    | <= | >= | == | != | [<>+\-*/%(),\[\]]""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True)
class Where:
    """A condition that episodes meet or don't.

    Attributes:
        text: as it was given.
    """

    text: str
    _condition: _Term

    def matches(self, episode: EpisodeRecord) -> bool:
        """Whether the episode meets the condition; False where that isn't known."""
        return self._condition.read(episode) is True


def parse_where(text: str) -> Where:
    """The condition that a text asks for.

    Args:
        text: such as ``return > 100 and length < 500``. Fields: :data:`FIELDS`; operators: ``and or not``,
            ``< <= > >= == !=``, ``in (…)``, ``+ - * / %``, brackets.

    Raises:
        InvalidParameterError: it is no condition; one line says why.
    """
    return Where(text, _condition(_Compiler(text).term(_parse(text)), text))


def _fail(text: str, why: str) -> NoReturn:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    raise InvalidParameterError(f"--where {shown!r}: {why}")


def _parse(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        _fail(text, f"a condition has at most {_LONGEST:,} characters, this one {len(text):,}.")
    if not text.strip():
        _fail(text, "give a condition, e.g. 'return > 100 and length < 500'.")
    try:
        return ast.parse(_as_python(text), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        _fail(text, "can't be read as a condition; write it as in 'return > 100 and not truncated'.")


def _as_python(text: str) -> str:
    """The text in Python's words, of nothing but tokens that belong to the language."""
    words, position = [], 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            _fail(text, _odd_token(text[position:]))
        word = token.group()
        words.append(" " if word.isspace() else _IN_PYTHON.get(word.lower(), word))
        position = token.end()
    return "".join(words).strip()


def _odd_token(rest: str) -> str:
    for sign, instead in (("=", "=="), ("&", "and"), ("|", "or"), ("!", "not"), ("~", "not")):
        if rest.startswith(sign):
            return f"write {instead!r} instead of {rest[: 2 if rest[1:2] == sign else 1]!r}."
    if rest[0] in "'\"":
        return "a quoted text doesn't end, or holds a backslash."
    word = re.match(r"[\w.]+|.", rest, re.DOTALL)
    return f"{word.group() if word else rest[0]!r} has no meaning here."


class _Compiler:
    """Turns the parser's nodes into functions of an episode's record."""

    def __init__(self, text: str) -> None:
        self._text = text

    def term(self, node: ast.expr, depth: int = 0) -> _Term:
        if depth > _DEEPEST:
            _fail(self._text, f"is nested more than {_DEEPEST} deep.")
        match node:
            case ast.BoolOp(op, values):
                return self._all_or_any(op, [self._flag(value, depth) for value in values])
            case ast.UnaryOp(ast.Not(), operand):
                return _negated(self._flag(operand, depth))
            case ast.UnaryOp(ast.USub() | ast.UAdd() as sign, operand):
                zero = _Term(_NUMBER, lambda _: 0)
                operation = operator.sub if isinstance(sign, ast.USub) else operator.add
                return _joined(operation, zero, self._number(operand, depth), _NUMBER)
            case ast.BinOp(left, op, right) if type(op) in _ARITHMETIC:
                sides = self._number(left, depth), self._number(right, depth)
                return _joined(_ARITHMETIC[type(op)], *sides, _NUMBER)
            case ast.Compare(left, ops, comparators):
                return self._comparison([left, *comparators], ops, depth)
            case _:
                return self._leaf(node)

    def _leaf(self, node: ast.expr) -> _Term:
        match node:
            case ast.Constant(bool() | int() | float() | str() as value):
                kind = _FLAG if isinstance(value, bool) else _TEXT if isinstance(value, str) else _NUMBER
                return _Term(kind, lambda _: value)
            case ast.Name(name):
                return self._field(name)
        _fail(self._text, f"{self._words(node)} has no meaning here; conditions are joined by and, or, not.")

    def _words(self, node: ast.expr) -> str:
        return repr(ast.unparse(node).replace(_RETURN, "return"))

    def _field(self, name: str) -> _Term:
        name = _ALIASES.get(name, name)
        if name in FIELDS:
            return FIELDS[name]
        near = difflib.get_close_matches(name.lower(), [*FIELDS, *_ALIASES], n=1)
        hint = f": did you mean {_ALIASES.get(near[0], near[0])}?" if near else "."
        _fail(self._text, f"there is no {name!r}{hint} It knows {', '.join(FIELDS)}; texts are quoted.")

    def _flag(self, node: ast.expr, depth: int) -> _Term:
        term = self.term(node, depth + 1)
        if term.kinds != _FLAG:
            _fail(self._text, f"{self._words(node)} is no condition; compare it, as in 'return > 100'.")
        return term

    def _number(self, node: ast.expr, depth: int) -> _Term:
        term = self.term(node, depth + 1)
        if "a number" not in term.kinds:
            _fail(self._text, f"{self._words(node)} is no number to calculate with.")
        return term

    def _all_or_any(self, op: ast.boolop, terms: Sequence[_Term]) -> _Term:
        decided = isinstance(op, ast.Or)  # one True decides an "or", one False an "and"

        def read(record: EpisodeRecord) -> bool | None:
            values = [term.read(record) for term in terms]
            if decided in values:
                return decided
            return None if None in values else not decided

        return _Term(_FLAG, read)

    def _comparison(self, nodes: Sequence[ast.expr], ops: Sequence[ast.cmpop], depth: int) -> _Term:
        parts = [self._compared(left, op, right, depth) for left, op, right in zip(nodes, ops, nodes[1:], strict=False)]
        return parts[0] if len(parts) == 1 else self._all_or_any(ast.And(), parts)

    def _compared(self, left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> _Term:
        if isinstance(op, ast.In | ast.NotIn):
            choices = right.elts if isinstance(right, ast.Tuple | ast.List) else [right]
            if not isinstance(right, ast.Tuple | ast.List | ast.Constant):
                _fail(self._text, f"{self._words(right)} is no list of choices; write them as in 'number in (1, 2)'.")
            equal = [self._compared(left, ast.Eq(), choice, depth) for choice in choices]
            found = self._all_or_any(ast.Or(), equal)
            return found if isinstance(op, ast.In) else _negated(found)
        if type(op) not in _COMPARISONS:
            _fail(self._text, "compare with < <= > >= == != or in (…).")
        terms = self.term(left, depth + 1), self.term(right, depth + 1)
        if not terms[0].kinds & terms[1].kinds:
            left_is, right_is = (" or ".join(sorted(term.kinds)) for term in terms)
            what = f"{self._words(left)} is {left_is}, {self._words(right)} is {right_is}"
            _fail(self._text, f"{what}: they can't be compared.")
        if _LABEL in (terms[0].kinds, terms[1].kinds):
            terms = _as_label(terms[0]), _as_label(terms[1])
        return _joined(_COMPARISONS[type(op)], *terms, _FLAG)


def _condition(term: _Term, text: str) -> _Term:
    if term.kinds != _FLAG:
        _fail(text, "is no condition; compare something, as in 'return > 100'.")
    return term


def _as_label(term: _Term) -> _Term:
    """The term's texts as checkpoints' labels, so that 100000 and '100000' are the same one."""

    def read(record: EpisodeRecord) -> _Value:
        value = term.read(record)
        return _label(value) if isinstance(value, str) else value

    return _Term(term.kinds, read)


def _negated(term: _Term) -> _Term:
    def read(record: EpisodeRecord) -> bool | None:
        value = term.read(record)
        return None if value is None else not value

    return _Term(_FLAG, read)


def _joined(operation: Callable[[Any, Any], Any], left: _Term, right: _Term, kinds: frozenset[str]) -> _Term:
    """Both sides' values, calculated or compared; unknown where one is, or where that can't be done with them."""

    def read(record: EpisodeRecord) -> _Value:
        values = left.read(record), right.read(record)
        if None in values:
            return None
        try:
            result: _Value = operation(*values)
        except ArithmeticError:
            return None
        except TypeError:  # the checkpoint "best" against a number: neither smaller nor greater
            return False
        return None if isinstance(result, float) and math.isnan(result) else result

    return _Term(kinds, read)
