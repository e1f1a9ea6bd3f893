"""RL Zoo's settings files beside a model: ``args.yml``, ``config.yml``, ``env_kwargs.yml``.

They hold Python tags, and RL Zoo's own loader runs them. Here every tag but that of OrderedDict and tuple is a
placeholder, which is refused where its value is needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhfblender_core.errors import CheckpointNotUsableError
from rlhfblender_core.untrusted.file_kinds import is_pointer
from rlhfblender_core.untrusted.model_zip import POINTER_PROBLEM
from rlhfblender_core.untrusted.yaml import DamagedYamlError, Tag, parse_yaml
from rlhfblender_core.wrappers.specs import AgentSettings, parse_settings

_NEEDED = ("normalize", "frame_stack", "env_wrapper", "vec_env_wrapper", "env_kwargs")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The text of one settings file, and its name for messages."""

    name: str
    content: bytes


def read_yaml(file: SettingsFile) -> dict[str, Any]:
    """The mapping in a settings file; values with a Python tag are :class:`Tag`.

    Raises:
        CheckpointNotUsableError: it is too large, or no YAML, or no mapping.
    """
    if is_pointer(file.content):  # which is YAML, too
        raise CheckpointNotUsableError(f"Settings file {file.name!r} {POINTER_PROBLEM}.")
    try:
        held = parse_yaml(file.content)
    except DamagedYamlError as error:
        raise _unusable(file, str(error)) from error
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
        tag = _first_tag(value)
        if tag is not None:
            raise _refused(file, key, tag)
    try:
        return parse_settings(needed)
    except ValueError as error:
        raise _unusable(file, f"isn't understood: {error}") from error


def _first_tag(value: Any) -> Tag | None:
    """The first Python tag in a value, whose depth and size were checked when it was read."""
    if isinstance(value, Tag):
        return value
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    if not isinstance(parts, (list, tuple)):
        return None
    return next((tag for part in parts if (tag := _first_tag(part)) is not None), None)


def _refused(file: SettingsFile, key: str, tag: Tag) -> CheckpointNotUsableError:
    return _unusable(file, f"is refused: {key} holds {tag.name[:100]!r}, and nothing in a checkpoint is executed")


def _unusable(file: SettingsFile, problem: str) -> CheckpointNotUsableError:
    return CheckpointNotUsableError(f"Settings file {file.name!r} {problem}; correct it or move it away.")
