"""Seeds: what makes episode ``n`` the same whoever rolls it out, wherever and after whatever.

The seed of an episode derives from the run's seed and the episode's number alone. It seeds the environment as it is;
policies derive their own from it (:func:`rlhfblender_core.policies.protocol.derived_seed`), because two generators with
the same seed would draw the same numbers. Other seeds are other bytes: who changes the rule raises the recipe
(:mod:`rlhfblender_core.rollout.settings`).
"""

import itertools
import random
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import seeding

from rlhfblender_core.policies.protocol import derived_seed

#: NumPy's SeedSequence takes any non-negative integer; the seeds made from it fit into an int32, which every
#: environment's ``reset(seed=…)`` takes.
_SEED_BITS = 31
#: Streams of :func:`derived_seed`; policies have 1 to 3.
_GLOBAL_TORCH_STREAM, _SPACES_STREAM, _UNSEEDED_STREAM = 4, 5, 1_000_000

#: Of the generators of Python, NumPy and torch, None where that isn't imported.
_States = tuple[Any, Any, Any]


def episode_seed(run_seed: int, episode: int) -> int:
    """The seed of an episode, in ``[0, 2**31)``; ``env.reset(seed=…)`` gets it unchanged."""
    word = np.random.SeedSequence((run_seed, episode)).generate_state(1, np.uint32)[0]
    return int(word) & ((1 << _SEED_BITS) - 1)


class SeededGlobals:
    """The global generators of Python, NumPy and torch start from the seed inside the block; after it they go on.

    So do those that Gymnasium makes there without a seed: of spaces that are kept in lists or made on the way, and of
    environments within an environment.

    Entered again, the block goes on where it was left. For environments that draw from them instead of from their own:
    what they draw would be another in every process. Torch is never imported for that, but seeded where somebody else
    has imported it.

    Args:
        seed: of the episode.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._inside: _States | None = None
        self._outside: _States | None = None
        self._unseeded = itertools.count(_UNSEEDED_STREAM)
        self._np_random_outside = seeding.np_random

    def __enter__(self) -> None:
        self._outside = _states()
        self._np_random_outside, seeding.np_random = seeding.np_random, self._np_random
        if self._inside is not None:
            _put(self._inside)
            return
        random.seed(self._seed)
        np.random.seed(self._seed)
        _seed_torch(self._seed)

    def __exit__(self, *_: object) -> None:
        self._inside = _states()
        seeding.np_random = self._np_random_outside
        assert self._outside is not None, "it was entered"  # noqa: S101 (for the type checker)
        _put(self._outside)

    def _np_random(self, seed: int | None = None) -> tuple[np.random.Generator, int]:
        return _np_random(derived_seed(self._seed, next(self._unseeded)) if seed is None else seed)


_np_random = seeding.np_random


def is_torch_loaded() -> bool:
    """Whether somebody has imported torch, wholly."""
    return hasattr(sys.modules.get("torch"), "set_rng_state")


def _states() -> _States:
    torchs = sys.modules["torch"].get_rng_state() if is_torch_loaded() else None
    return random.getstate(), np.random.get_state(), torchs


def _put(states: _States) -> None:
    ours, numpys, torchs = states
    random.setstate(ours)
    np.random.set_state(numpys)
    if torchs is not None:
        sys.modules["torch"].set_rng_state(torchs)


def _seed_torch(seed: int) -> None:
    if is_torch_loaded():
        # Seeding all kinds of devices, of which most machines have none, takes tracebacks: half a millisecond.
        generators = sys.modules["torch"] if _has_accelerator() else sys.modules["torch"].default_generator
        generators.manual_seed(derived_seed(seed, _GLOBAL_TORCH_STREAM))


@cache
def _has_accelerator() -> bool:
    torch = sys.modules["torch"]
    return any(kind.is_available() for kind in (torch.cuda, torch.backends.mps, torch.xpu))


def seed_spaces(env: gym.Env[Any, Any], seed: int) -> None:
    """Seeds the spaces of an environment and of all its wrappers, from which some draw in ``reset`` or ``step``.

    Args:
        env: not yet reset.
        seed: of the episode.
    """
    spaces = {id(space): space for layer in _layers(env) for space in _spaces_of(layer)}
    for number, space in enumerate(spaces.values()):
        # Spaces of somebody's own may refuse; whether that matters shows when the environment is tried out.
        with suppress(Exception):
            # MultiDiscrete and Dict spaces accept seeds below 2**32 only.
            space.seed(derived_seed(seed, _SPACES_STREAM + number) % 2**32)


def _layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """The wrappers, the outermost first, and the environment itself."""
    while True:
        yield env
        if not isinstance(env, gym.Wrapper):
            return
        env = env.env


def _spaces_of(layer: gym.Env[Any, Any]) -> Iterator[gym.Space[Any]]:
    """The two that every environment has, and those that it or its class keeps under other names."""
    holders = [vars(layer), *(vars(cls) for cls in type(layer).__mro__)]
    own = [value for holder in holders for value in holder.values()]
    yield from (value for value in (layer.observation_space, layer.action_space, *own) if isinstance(value, gym.Space))
