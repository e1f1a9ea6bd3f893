"""Hyperparameters as plain values: RL Zoo's tuned files, one's own file of the same format, and what is given by hand.

Nothing here imports an algorithm; what the values mean is in :mod:`rlhfblender_core.train.arguments`.
Format: https://rl-baselines3-zoo.readthedocs.io/en/master/guide/config.html
"""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhfblender_core.checkpoints.algorithms import Algorithm
from rlhfblender_core.environments.registration import entry_point_text, find_registration
from rlhfblender_core.environments.spec import EnvironmentSpec, as_json_value
from rlhfblender_core.errors import EnvironmentNotUsableError, InvalidParameterError
from rlhfblender_core.untrusted.yaml import DamagedYamlError, Tag, parse_yaml
from rlhfblender_core.wording import did_you_mean

#: RL Zoo's names of algorithms and their files, where they aren't those of the classes in lower case.
_ZOO_NAMES = {Algorithm.RECURRENT_PPO: "ppo_lstm"}
#: Which environments a section without a name of its own is for.
_ATARI, _DEFAULT = "atari", "default"
_EXTRA = "pip install 'rlhfblender-data[train]'"
_VERSION = re.compile(r"-v\d+$")


@dataclass(frozen=True)
class Hyperparameters:
    """What an agent is trained with.

    Attributes:
        values: by RL Zoo's names, JSON values.
        note: where they are from, for a person.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def zoo_name(algorithm: Algorithm) -> str:
    """RL Zoo's name for an algorithm."""
    return _ZOO_NAMES.get(algorithm, algorithm.lower())


def find_hyperparameters(
    algorithm: Algorithm, spec: EnvironmentSpec, file: str | None, given: Mapping[str, Any]
) -> Hyperparameters:
    """The hyperparameters of an algorithm for an environment.

    Args:
        algorithm: to train with.
        spec: of the environment.
        file: of RL Zoo's format; None for RL Zoo's own tuned ones.
        given: by hand; they win.

    Raises:
        InvalidParameterError: the file is missing or no such file, or holds what is no plain value.
    """
    if file is not None and "://" in file:  # a Path would take its slashes apart; it may hold a password
        raise InvalidParameterError("--hyperparameters-file is a file on this machine, no URL. Download it first.")
    found = _tuned(algorithm, spec) if file is None else _from_file(Path(file).expanduser(), spec)
    return Hyperparameters({**found.values, **_plain(given, "--hyperparameters")}, found.note)


def _tuned(algorithm: Algorithm, spec: EnvironmentSpec) -> Hyperparameters:
    zoo = importlib.util.find_spec("rl_zoo3")  # found, not imported
    if zoo is None or zoo.origin is None:
        return Hyperparameters(
            {}, f"{algorithm} with Stable-Baselines3's defaults; for RL Zoo's tuned hyperparameters: {_EXTRA}"
        )
    file = Path(zoo.origin).parent / "hyperparams" / f"{zoo_name(algorithm)}.yml"
    name, values = _section(_read(file), spec) if file.is_file() else (None, {})
    if name in (None, _DEFAULT):
        return Hyperparameters(
            {}, f"RL Zoo has no {algorithm} for {spec.env_id}: trained with Stable-Baselines3's defaults"
        )
    return Hyperparameters(_plain(values, str(file)), f"RL Zoo's hyperparameters of {algorithm} for {name}")


def _from_file(file: Path, spec: EnvironmentSpec) -> Hyperparameters:
    held = _read(file)
    if not any(isinstance(value, dict) and key != "env_kwargs" for key, value in held.items()):
        return Hyperparameters(_plain(held, str(file)), f"hyperparameters of {file.name}")  # as RL Zoo's config.yml
    name, values = _section(held, spec)
    if name is None:
        known = did_you_mean(spec.env_id, sorted(held))
        raise InvalidParameterError(f"{file} has no hyperparameters for {spec.env_id}, and no {_DEFAULT!r}. {known}")
    return Hyperparameters(_plain(values, str(file)), f"hyperparameters of {file.name} for {name}")


def _read(file: Path) -> dict[str, Any]:
    try:
        held = parse_yaml(file.read_bytes())
    except OSError as error:
        raise InvalidParameterError(f"{file} can't be read ({error.strerror or error}).") from error
    except DamagedYamlError as error:
        raise InvalidParameterError(f"{file} {error}.") from error
    if not isinstance(held, dict):
        raise InvalidParameterError(f"{file} holds no hyperparameters: expected names with values.")
    return {str(key): value for key, value in held.items()}


def _section(held: Mapping[str, Any], spec: EnvironmentSpec) -> tuple[str | None, dict[str, Any]]:
    """The part for the environment: its own, that of Atari games, that of another version, the default."""
    stem = _VERSION.sub("", spec.env_id)
    versions = sorted((key for key in held if key != stem and _VERSION.sub("", key) == stem), reverse=True)
    for name in (spec.env_id, *([_ATARI] if _is_atari(spec) else []), *versions, _DEFAULT):
        if isinstance(held.get(name), dict):
            return name, held[name]
    return None, {}


def _is_atari(spec: EnvironmentSpec) -> bool:
    try:
        maker = entry_point_text(find_registration(spec).entry_point)
    except EnvironmentNotUsableError:
        return False
    return maker is not None and maker.partition(":")[0].partition(".")[0] == "ale_py"


def _plain(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if _holds_tag(value):
            raise InvalidParameterError(f"{where}: {name} holds a Python tag, and nothing in a file is executed.")
        plain[str(name)] = as_json_value(_number(value), str(name))
    return plain


def _holds_tag(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_tag(part) for part in value.values())
    return isinstance(value, Tag) or (isinstance(value, (list, tuple)) and any(_holds_tag(part) for part in value))


def _number(value: Any) -> Any:
    """The number that a text is; YAML 1.1 takes ``1e-3`` for a text."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value
