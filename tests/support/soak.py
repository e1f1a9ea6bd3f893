"""What `make test` tries a sample of, and `make soak` all of."""

from collections.abc import Iterable
from typing import Any

import pytest


def sampled(cases: Iterable[Any], *kept: Any) -> list[Any]:
    """The cases of a test for ``parametrize``; those that aren't kept wait for `make soak`."""
    cases = list(cases)
    assert all(one in cases for one in kept), kept
    return [case if case in kept else _soaked(case) for case in cases]


def _soaked(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.soak)
