"""Seeds: what makes episode ``n`` the same whoever rolls it out, wherever and after whatever.

The seed of an episode derives from the run's seed and the episode's number alone. It seeds the environment as it is;
what else draws random numbers gets a seed derived from it, because two generators with the same seed would draw the
same numbers (an initial state and the first action would be correlated).
"""

from enum import IntEnum

import numpy as np

#: NumPy's SeedSequence takes any non-negative integer; the seeds made from it fit into an int32, which every
#: environment's ``reset(seed=…)`` takes.
_SEED_BITS = 31


class SeedUse(IntEnum):
    """What a derived seed is for; the number enters the derivation."""

    ACTION_SPACE = 1
    POLICY = 2


def episode_seed(run_seed: int, episode: int) -> int:
    """The seed of an episode, in ``[0, 2**31)``; ``env.reset(seed=…)`` gets it unchanged."""
    return _first_word(run_seed, episode)


def derived_seed(seed: int, use: SeedUse) -> int:
    """A seed in ``[0, 2**31)`` for another consumer in the same episode, independent of the environment's."""
    return _first_word(seed, int(use))


def _first_word(*entropy: int) -> int:
    word = np.random.SeedSequence(entropy).generate_state(1, np.uint32)[0]
    return int(word) & ((1 << _SEED_BITS) - 1)
