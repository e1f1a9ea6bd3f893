"""What an agent was trained with, as plain values: wrappers, frame stack, environment kwargs.

Parsed from an agent's settings files or from ``--env-kwargs``; nothing is imported or applied here.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rlhfblender_core.errors import InvalidParameterError

#: Keys of ``--env-kwargs`` (and of RL Zoo's hyperparameters) that concern wrappers and not the environment.
SETTING_KEYS = ("env_wrapper", "frame_stack", "vec_env_wrapper")

_FRAME_STACKS = frozenset({"VecFrameStack"})
#: Wrappers of vectorised environments that don't change what a policy sees, or that are applied anyway.
_NEUTRAL_VEC_WRAPPERS = frozenset({"VecCheckNan", "VecMonitor", "VecTransposeImage", "VecNormalize"})


@dataclass(frozen=True, slots=True)
class WrapperSpec:
    """One wrapper as a settings file names it: dotted name and keyword arguments."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What has to be around the environment for an agent to see what it saw in training.

    Attributes:
        frame_stack: number of observations stacked, None for none.
        norm_obs: whether the agent's observations were normalised; None where nothing says so.
        wrappers: applied in this order, the first one innermost.
        env_kwargs: constructor arguments of the environment that the agent was trained in.
    """

    frame_stack: int | None = None
    norm_obs: bool | None = None
    wrappers: tuple[WrapperSpec, ...] = ()
    env_kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_atari(self) -> bool:
        """Whether Atari preprocessing is among the wrappers."""
        return any(spec.name.rsplit(".", 1)[-1] == "AtariWrapper" for spec in self.wrappers)

    def overridden_by(self, other: "AgentSettings") -> "AgentSettings":
        """These settings, with what the other ones name instead."""
        return replace(
            self,
            frame_stack=self.frame_stack if other.frame_stack is None else other.frame_stack,
            norm_obs=self.norm_obs if other.norm_obs is None else other.norm_obs,
            wrappers=other.wrappers or self.wrappers,
            env_kwargs={**self.env_kwargs, **other.env_kwargs},
        )


def settings_from_env_kwargs(env_kwargs: Mapping[str, Any]) -> tuple[AgentSettings, dict[str, Any]]:
    """Splits ``--env-kwargs`` into what concerns wrappers and what is the environment's own.

    Returns:
        The settings (without ``env_kwargs``), and the remaining kwargs for the environment.

    Raises:
        InvalidParameterError: a wrapper or frame stack is written in a way that can't be understood.
    """
    own = {key: value for key, value in env_kwargs.items() if key in SETTING_KEYS}
    rest = {key: value for key, value in env_kwargs.items() if key not in SETTING_KEYS}
    try:
        return parse_settings(own), rest
    except ValueError as error:
        raise InvalidParameterError(f"--env-kwargs: {error}.") from error


def parse_settings(hyperparameters: Mapping[str, Any]) -> AgentSettings:
    """The settings among RL Zoo's hyperparameters.

    Raises:
        ValueError: one of them has a form that RL Zoo doesn't know; the message names it.
    """
    stacked = [*parse_wrappers(hyperparameters.get("vec_env_wrapper"))]
    frame_stack = _frame_stack(hyperparameters.get("frame_stack"))
    for spec in stacked:
        kind = spec.name.rsplit(".", 1)[-1]
        if kind in _FRAME_STACKS:
            frame_stack = _frame_stack(spec.kwargs.get("n_stack"))
        elif kind not in _NEUTRAL_VEC_WRAPPERS:
            raise ValueError(f"vec_env_wrapper {spec.name!r} isn't supported, only VecFrameStack and VecNormalize are")
    return AgentSettings(
        frame_stack=frame_stack,
        norm_obs=_norm_obs(hyperparameters.get("normalize")),
        wrappers=parse_wrappers(hyperparameters.get("env_wrapper")),
        env_kwargs=_kwargs(hyperparameters.get("env_kwargs")),
    )


def parse_wrappers(value: object) -> tuple[WrapperSpec, ...]:
    """Wrappers in any of RL Zoo's forms: a name, ``{name: kwargs}``, or a list of these.

    Raises:
        ValueError: it has another form.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    if isinstance(value, str) and value.lstrip()[0] in "[{":
        value = parse_literal(value)
    if isinstance(value, str):
        return (WrapperSpec(value.strip()),)
    if isinstance(value, Mapping):
        return tuple(WrapperSpec(str(name), _kwargs(kwargs)) for name, kwargs in value.items())
    if isinstance(value, Sequence):
        return tuple(spec for entry in value for spec in parse_wrappers(entry))
    raise ValueError(f"env_wrapper {value!r:.80} is neither a name nor a list of names")


def parse_literal(text: str) -> Any:
    """The value of a Python literal; ``dict(a=1)`` counts as one, because RL Zoo writes kwargs like that.

    Raises:
        ValueError: it is something else; nothing of it is evaluated.
    """
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:  # TypeError: a list as a key
        raise ValueError(f"{text!r:.80} is no plain value such as dict(norm_obs=True)") from error


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        if any(keyword.arg is None for keyword in node.keywords):
            raise ValueError("** is not allowed")
        return {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(part) for part in node.elts]
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_literal(key): _literal(part) for key, part in zip(node.keys, node.values, strict=True) if key}
    return ast.literal_eval(node)


def _frame_stack(value: object) -> int | None:
    if value is None or value == "":
        return None
    number = parse_literal(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= 64:  # noqa: PLR2004
        raise ValueError(f"frame_stack {value!r:.80} is not a number from 1 to 64")
    return number if number > 1 else None


def _norm_obs(value: object) -> bool | None:
    """``True``, ``False``, or ``dict(norm_obs=…)``, whose default is True as VecNormalize's."""
    if value is None:
        return None
    parsed = parse_literal(value) if isinstance(value, str) else value
    if isinstance(parsed, Mapping):
        parsed = parsed.get("norm_obs", True)
    if not isinstance(parsed, bool):
        raise ValueError(f"normalize {value!r:.80} is neither True nor False nor dict(norm_obs=…)")
    return parsed


def _kwargs(value: object) -> dict[str, Any]:
    parsed = parse_literal(value) if isinstance(value, str) and value.strip() else value
    if not parsed:
        return {}
    if not isinstance(parsed, Mapping) or not all(isinstance(key, str) for key in parsed):
        raise ValueError(f"keyword arguments {value!r:.80} are no mapping of names to values")
    return dict(parsed)
