"""RL Zoo's settings files beside a model: ``args.yml``, ``config.yml``, ``env_kwargs.yml``.

They hold Python tags, and RL Zoo's own loader runs them. Here every tag but that of OrderedDict and tuple is a
placeholder, which is refused where its value is needed.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.untrusted.file_kinds import is_pointer
from rlhfblender_core.untrusted.model_zip import POINTER_PROBLEM
from rlhfblender_core.wrappers.specs import AgentSettings, parse_settings

MAX_YAML_BYTES = 2**20
_MAX_DEPTH = 20
_ORDERED_DICT = "tag:yaml.org,2002:python/object/apply:collections.OrderedDict"
_TUPLE = "tag:yaml.org,2002:python/tuple"
_NEEDED = ("normalize", "frame_stack", "env_wrapper", "vec_env_wrapper", "env_kwargs")


@dataclass(frozen=True, slots=True)
class Tag:
    """A Python tag that nothing was done with."""

    name: str


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The text of one settings file, and its name for messages."""

    name: str
    content: bytes


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, with RL Zoo's two tags and placeholders for all others."""


def _ordered_dict(loader: _Loader, node: yaml.Node) -> dict[Hashable, Any]:
    """``OrderedDict`` applied to a list of one list of pairs."""
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.YAMLError("an OrderedDict without a list of pairs")
    arguments = loader.construct_sequence(node, deep=True)
    pairs = arguments[0] if len(arguments) == 1 else None
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):  # noqa: PLR2004
        raise yaml.YAMLError("an OrderedDict that is no list of pairs")
    return dict(pairs)


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.YAMLError("a tuple that is no list")
    return tuple(loader.construct_sequence(node, deep=True))


def _placeholder(loader: _Loader, suffix: str, node: yaml.Node) -> Tag:  # noqa: ARG001 - PyYAML's signature
    return Tag(f"{node.tag}".removeprefix("tag:yaml.org,2002:"))


_Loader.add_constructor(_ORDERED_DICT, _ordered_dict)
_Loader.add_constructor(_TUPLE, _tuple)
_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _placeholder)
_Loader.add_multi_constructor("!", _placeholder)


def read_yaml(file: SettingsFile) -> dict[str, Any]:
    """The mapping in a settings file; values with a Python tag are :class:`Tag`.

    Raises:
        CheckpointNotUsableError: it is too large, or no YAML, or no mapping.
    """
    if len(file.content) > MAX_YAML_BYTES:
        raise _unusable(file, f"has more than {MAX_YAML_BYTES:,} bytes")
    if is_pointer(file.content):  # which is YAML, too
        raise CheckpointNotUsableError(f"Settings file {file.name!r} {POINTER_PROBLEM}.")
    try:
        # A subclass of SafeLoader: nothing is constructed but plain values.
        held = yaml.load(file.content, Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, LookupError) as error:
        raise _unusable(file, f"is no YAML ({' '.join(str(error).split())[:100]})") from error
    if held is None:
        return {}
    if isinstance(held, Tag):
        raise _refused(file, "the whole file", held)
    if not isinstance(held, dict):
        raise _unusable(file, "is no mapping of names to values")
    return {str(key): value for key, value in held.items()}


def agent_settings(
    config: SettingsFile | None, args: SettingsFile | None, env_kwargs: SettingsFile | None
) -> tuple[AgentSettings, str | None]:
    """What an agent was trained with, and its algorithm (RL Zoo's name) where ``args.yml`` says it.

    Raises:
        CheckpointNotUsableError: a file is unreadable, or a value that is needed isn't plain.
    """
    hyperparameters = {} if config is None else read_yaml(config)
    settings = AgentSettings() if config is None else _parsed(config, hyperparameters)
    algorithm = None
    for file, in_args in ((args, True), (env_kwargs, False)):
        if file is None:
            continue
        held = read_yaml(file)
        if in_args:
            algorithm = held["algo"] if isinstance(held.get("algo"), str) else None
            held = {"env_kwargs": held.get("env_kwargs")}
        else:
            held = {"env_kwargs": held}
        settings = settings.overridden_by(_parsed(file, held))
    return settings, algorithm


def trained_environment(args: SettingsFile | None) -> str | None:
    """The id of the environment that an agent was trained in, as ``args.yml`` says it."""
    held = None if args is None else read_yaml(args).get("env")
    return held if isinstance(held, str) and held else None


def _parsed(file: SettingsFile, held: Mapping[str, Any]) -> AgentSettings:
    needed = {key: held[key] for key in _NEEDED if key in held}
    for key, value in needed.items():
        tag = _first_tag(value, 0)
        if tag is not None:
            raise _refused(file, key, tag)
    try:
        return parse_settings(needed)
    except ValueError as error:
        raise _unusable(file, f"isn't understood: {error}") from error


def _first_tag(value: Any, depth: int) -> Tag | None:
    if isinstance(value, Tag):
        return value
    if depth > _MAX_DEPTH:
        return Tag("values nested too deeply")
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    if not isinstance(parts, (list, tuple)):
        return None
    if len(parts) > 1000:  # noqa: PLR2004 - aliases can make few bytes look like very many values
        return Tag("too many values")
    return next((tag for part in parts if (tag := _first_tag(part, depth + 1)) is not None), None)


def _refused(file: SettingsFile, key: str, tag: Tag) -> CheckpointNotUsableError:
    return _unusable(file, f"is refused: {key} holds {tag.name[:100]!r}, and nothing in a checkpoint is executed")


def _unusable(file: SettingsFile, problem: str) -> CheckpointNotUsableError:
    return CheckpointNotUsableError(f"Settings file {file.name!r} {problem}; correct it or move it away.")
