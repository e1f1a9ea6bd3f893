"""The benchmarks run on today's code: each of them, and both sides of the comparison with a bare loop."""

import importlib
from pathlib import Path

import pytest

from benchmarks import bench

BENCHMARKS = sorted(path.stem for path in Path(bench.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_its_imports_exist(name: str) -> None:
    assert vars(importlib.import_module(f"benchmarks.{name}"))


def test_the_floor_and_ours_make_episodes() -> None:
    one = {"max_steps": 5, "episodes": 1, "processes": 1}
    assert bench.floor_rate("CartPole-v1", None, **one) > 0
    rate, frame_bytes = bench.our_rate("CartPole-v1", None, **one)
    assert (rate > 0, frame_bytes > 0) == (True, True)
