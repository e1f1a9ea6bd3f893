"""What an environment does to its process, undone."""

import gc

import pytest

from rlhfblender_core.environments.contained import contained


@pytest.mark.parametrize("was_on", [True, False])
def test_garbage_is_looked_for_afterwards_as_it_was_before(was_on: bool) -> None:
    (gc.enable if was_on else gc.disable)()
    try:
        with contained():
            (gc.disable if was_on else gc.collect)()
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
