"""Puts an agent's wrappers around an environment."""

import difflib
import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium as gym

from rlhfblender_core.errors import CheckpointNotUsableError, RLHFBlenderError, one_line
from rlhfblender_core.tuples import tuple_forms
from rlhfblender_core.wrappers.specs import WrapperSpec
from rlhfblender_core.wrappers.table import IDENTITY, TRAINING_WRAPPERS, WRAPPERS

Env = gym.Env[Any, Any]
#: What multiplies the memory of an observation, or the time of a step, and the most that is taken from a settings file.
_SIZES = frozenset({
    "agent_view_size", "delay", "frame_skip", "height", "horizon", "noop_max", "num_repeats", "num_stack",
    "screen_size", "skip", "stack_size", "tile_size", "width",
})  # fmt: skip
_LARGEST, _MOST_ELEMENTS = 1024, 1 << 22


def wrap_environment(env: Env, wrappers: Sequence[WrapperSpec], *, trust: bool = False, training: bool = False) -> Env:
    """The environment inside these wrappers, the first one innermost.

    Names are looked up in a table and never imported, unless ``trust`` says that the user vouches for them. Atari
    wrappers are applied such that an episode is a whole game (see :mod:`.atari`), but for training.

    Raises:
        CheckpointNotUsableError: a wrapper isn't in the table, needs a package, or doesn't go with the environment.
    """
    for spec in wrappers:
        make = _resolved(spec.name, TRAINING_WRAPPERS if training else WRAPPERS, trust=trust)
        if make is None:
            continue
        if not (trust or training):
            _check_sizes(spec)
        env = _wrapped(env, make, spec)
    return env


def _check_sizes(spec: WrapperSpec) -> None:
    for name, value in spec.kwargs.items():
        sides = value if isinstance(value, list | tuple) else [value]
        elements = math.prod(side for side in sides if isinstance(side, int | float))
        most = _LARGEST if name in _SIZES else _MOST_ELEMENTS if name == "shape" else math.inf
        if abs(elements) > most:
            raise CheckpointNotUsableError(
                f"The agent's settings give the wrapper {spec.name!r} {name}={value!s:.60}, more than is taken from a "
                f"file ({most:,}). Use --trust-checkpoint if you made the files yourself."
            )


def _wrapped(env: Env, make: Callable[..., Env], spec: WrapperSpec) -> Env:
    first: Exception | None = None
    for kwargs in tuple_forms(spec.kwargs):  # Gymnasium's ResizeObservation takes no list, and YAML has no tuples
        try:
            return make(env, **kwargs)
        except RLHFBlenderError:
            raise
        except Exception as error:  # noqa: BLE001 (wrappers refuse by asserts and errors of all kinds; the first is told)
            first = first or error
    assert first is not None, "there is always a form"  # noqa: S101 (for the type checker)
    raise CheckpointNotUsableError(
        f"The wrapper {spec.name!r} doesn't go with this environment: {one_line(first)[:200]}."
    ) from first


def _resolved(name: str, table: Mapping[str, str], *, trust: bool) -> Callable[..., Env] | None:
    """What makes the wrapper; None where it would change nothing that matters here."""
    target = table.get(name)
    if target == IDENTITY:
        return None
    if target is None:
        if not trust:
            raise CheckpointNotUsableError(_unknown(name, table))
        target = ":".join(name.rsplit(".", 1))
    module, _, attribute = target.partition(":")
    try:
        made: Callable[..., Env] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointNotUsableError(
            f"The wrapper {name!r} can't be imported ({one_line(error)[:160]}). Install the package it comes from."
        ) from error
    return made


def _unknown(name: str, table: Mapping[str, str]) -> str:
    short = {known.rsplit(".", 1)[-1]: known for known in table}
    close = difflib.get_close_matches(name.rsplit(".", 1)[-1], short, n=1, cutoff=0.7)
    meant = f" Did you mean {short[close[0]]!r}?" if close else ""
    if table is TRAINING_WRAPPERS:
        way_out = "Use one of Gymnasium's, Stable-Baselines3's or MiniGrid's, or wrap inside --env-gym-entrypoint."
    else:
        way_out = "Use --trust-checkpoint if you made the files yourself."
    return f"The agent's settings name the wrapper {name[:100]!r}, which isn't known to be safe.{meant} {way_out}"
