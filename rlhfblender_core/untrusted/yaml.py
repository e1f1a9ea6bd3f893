"""YAML texts of others: plain values, without Python's tags, and no larger written out than they may be.

PyYAML copies what a merge key (``<<``) names, and what that names, and so on: 600 bytes keep it busy for minutes. An
alias is cheap to read, and long to walk through. Both are counted in the tree of nodes, before a value is made.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import yaml

from rlhfblender_core.untrusted import limits

_ORDERED_DICT = "tag:yaml.org,2002:python/object/apply:collections.OrderedDict"
_TUPLE = "tag:yaml.org,2002:python/tuple"
_PAIR = 2
#: All that PyYAML raises on damaged input, found by flipping bits.
_DAMAGED = (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, LookupError, OverflowError)


class DamagedYamlError(ValueError):
    """A text that is no YAML, or asks for too much; the text is the end of a sentence about the file."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A Python tag that nothing was done with."""

    name: str


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with RL Zoo's two tags and placeholders for all others; it counts what it reads."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Counted, and never deeper than it may be."""
        self._nodes += 1
        if self._nodes > limits.MAX_YAML_VALUES:
            raise DamagedYamlError("holds too many values")
        if self._depth > limits.MAX_YAML_DEPTH:
            raise DamagedYamlError("is nested too deeply")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _ordered_dict(loader: _Loader, node: yaml.Node) -> dict[Hashable, Any]:
    """``OrderedDict`` applied to a list of one list of pairs."""
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.YAMLError("an OrderedDict without a list of pairs")
    arguments = loader.construct_sequence(node, deep=True)
    pairs = arguments[0] if len(arguments) == 1 else None
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == _PAIR for pair in pairs):
        raise yaml.YAMLError("an OrderedDict that is no list of pairs")
    return dict(pairs)


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.YAMLError("a tuple that is no list")
    return tuple(loader.construct_sequence(node, deep=True))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    """Python writes none of very many digits out, in a message as little as in JSON: it raises instead."""
    number = int(loader.construct_yaml_int(node))
    if number.bit_length() > limits.MAX_INTEGER_BITS:
        raise DamagedYamlError("holds a number of very many digits")
    return number


def _placeholder(loader: _Loader, suffix: str, node: yaml.Node) -> Tag:  # noqa: ARG001 - PyYAML's signature
    return Tag(f"{node.tag}".removeprefix("tag:yaml.org,2002:"))


_Loader.add_constructor(_ORDERED_DICT, _ordered_dict)
_Loader.add_constructor(_TUPLE, _tuple)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _placeholder)
_Loader.add_multi_constructor("!", _placeholder)


def parse_yaml(content: bytes) -> Any:
    """The value that a YAML text holds; values with a Python tag are :class:`Tag`.

    Raises:
        DamagedYamlError: it is too long, no YAML, contains itself, or is very large with its aliases written out.
    """
    if len(content) > limits.MAX_YAML_BYTES:
        raise DamagedYamlError(f"has more than {limits.MAX_YAML_BYTES:,} bytes")
    try:
        loader = _Loader(content.decode("utf-8-sig"))
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _written_out(node, {}, 0) > limits.MAX_YAML_VALUES:
                raise DamagedYamlError("holds too many values: its aliases unfold to far more than it has bytes")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except DamagedYamlError:
        raise
    except _DAMAGED as error:
        raise DamagedYamlError(f"is no YAML ({' '.join(str(error).split())[:100]})") from error


def _written_out(node: yaml.Node, known: dict[int, int | None], depth: int) -> int:
    """Nodes below and with this one, each as often as it is named."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if depth > limits.MAX_YAML_DEPTH:
        raise DamagedYamlError("is nested too deeply")
    if id(node) not in known:
        known[id(node)] = None
        parts = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_written_out(part, known, depth + 1) for part in parts)
    found = known[id(node)]
    if found is None:
        raise DamagedYamlError("contains itself")
    return found
