from gymnasium.spaces import Box

from rlhfblender_core.rollout.seeding import SeededGlobals, episode_seed


def test_seeds_are_the_same_for_ever() -> None:
    # Published data sets name these seeds: other numbers are another recipe (rollout/settings.py).
    assert (episode_seed(0, 0), episode_seed(0, 1), episode_seed(7, 0)) == (821328062, 1817441348, 2083679832)


def test_seeds_of_different_episodes_differ() -> None:
    seeds = {episode_seed(run, n) for run in range(20) for n in range(200)}
    assert len(seeds) == 4000


def test_seeds_fit_into_an_int32_whatever_the_runs_seed() -> None:
    assert all(0 <= episode_seed(run, n) < 2**31 for run in (0, 1, 2**31, 2**32, 2**64, 10**30) for n in (0, 10**6))


def test_generators_that_nobody_seeds_are_seeded_inside_the_block_and_nowhere_else() -> None:
    def draw() -> float:
        return float(Box(0, 1, (), float).sample())

    block = SeededGlobals(3)
    with block:
        first = draw()
        with SeededGlobals(4):
            other = draw()
    with block:
        second = draw()
    with SeededGlobals(3):
        assert [draw(), draw()] == [first, second]
    assert len({first, second, other, draw(), draw()}) == 5
