"""Seeds: what makes episode ``n`` the same whoever rolls it out, wherever and after whatever.

The seed of an episode derives from the run's seed and the episode's number alone. It seeds the environment as it is;
policies derive their own from it (:func:`rlhfblender_core.policies.protocol.derived_seed`), because two generators with
the same seed would draw the same numbers.
"""

import numpy as np

#: NumPy's SeedSequence takes any non-negative integer; the seeds made from it fit into an int32, which every
#: environment's ``reset(seed=…)`` takes.
_SEED_BITS = 31


def episode_seed(run_seed: int, episode: int) -> int:
    """The seed of an episode, in ``[0, 2**31)``; ``env.reset(seed=…)`` gets it unchanged."""
    word = np.random.SeedSequence((run_seed, episode)).generate_state(1, np.uint32)[0]
    return int(word) & ((1 << _SEED_BITS) - 1)
