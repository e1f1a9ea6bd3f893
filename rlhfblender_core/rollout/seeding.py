"""Seeds: what makes episode ``n`` the same whoever rolls it out, wherever and after whatever.

The seed of an episode derives from the run's seed and the episode's number alone. It seeds the environment as it is;
policies derive their own from it (:func:`rlhfblender_core.policies.protocol.derived_seed`), because two generators with
the same seed would draw the same numbers.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

#: NumPy's SeedSequence takes any non-negative integer; the seeds made from it fit into an int32, which every
#: environment's ``reset(seed=…)`` takes.
_SEED_BITS = 31


def episode_seed(run_seed: int, episode: int) -> int:
    """The seed of an episode, in ``[0, 2**31)``; ``env.reset(seed=…)`` gets it unchanged."""
    word = np.random.SeedSequence((run_seed, episode)).generate_state(1, np.uint32)[0]
    return int(word) & ((1 << _SEED_BITS) - 1)


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Python's and NumPy's global generators start from the seed inside the block, and go on as before after it.

    For environments that draw from them instead of from their own: what they draw would be another in every process.
    """
    ours, numpys = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
