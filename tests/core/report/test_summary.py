"""What a run reports, from the registry's index alone."""

import math
from collections.abc import Iterator
from statistics import fmean, pstdev

import pytest

from rlhfblender_core.registry import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentRecord,
    Registry,
    open_registry,
)
from rlhfblender_core.report.summary import CheckpointOutcome, CheckpointReport, Report, report_checkpoints


@pytest.fixture
def registry(new_url: str) -> Iterator[Registry]:
    with open_registry(new_url) as registry:
        registry.ensure_environment(EnvironmentRecord(env_id="A-v0"))
        registry.ensure_experiment(ExperimentRecord(name="E", env_id="A-v0", kind="random"))
        registry.ensure_checkpoints("E", [CheckpointRecord(experiment="E", label=label) for label in ("random", "9")])
        yield registry


def index(registry: Registry, returns: list[float], label: str = "random", **fields: object) -> None:
    rows = [
        EpisodeRecord(
            experiment="E",
            checkpoint=label,
            number=number,
            seed=0,
            episode_return=value,
            episode_length=10 + number,
            terminated=True,
            truncated=False,
            request_digest="ab",
            **fields,
        )
        for number, value in enumerate(returns)
    ]
    registry.record_episodes(rows)


def report(registry: Registry, wanted: int, made: int = 0, failed: dict[int, str] | None = None) -> CheckpointReport:
    (row,) = report_checkpoints(registry, "E", wanted, [CheckpointOutcome("random", made, failed or {})])
    return row


def test_a_report_counts_what_was_made_was_there_and_failed(registry: Registry) -> None:
    index(registry, [1.0, 2.0, 6.0])
    row = report(registry, 4, made=2, failed={3: "episode 3 failed"})
    assert (row.made, row.existing, len(row.failed)) == (2, 1, 1)
    assert (row.mean_return, row.mean_length) == (3.0, 11.0)
    whole = Report("E", "data", (row,))
    assert (whole.made, whole.failed, whole.wanted) == (2, 1, 4)


def test_an_old_episode_whose_replacement_failed_counts_as_failed_only(registry: Registry) -> None:
    index(registry, [1.0, 5.0])
    row = report(registry, 2, made=1, failed={1: "episode 1 failed"})
    assert (row.made, row.existing, len(row.failed), row.mean_return) == (1, 0, 1, 1.0)


def test_episodes_that_another_run_took_away_count_as_failed(registry: Registry) -> None:
    index(registry, [1.0])
    row = report(registry, 3)
    assert (row.made, row.existing, sorted(row.failed)) == (0, 1, [1, 2])
    assert "Run the same command again" in row.failed[1]


def test_only_episodes_that_were_asked_for_count(registry: Registry) -> None:
    index(registry, [1.0, 2.0, 600.0])
    index(registry, [7.0] * 5, "9")
    row = report(registry, 2)
    assert (row.existing, row.mean_return, row.std_return) == (2, 1.5, 0.5)


def test_warnings_are_counted_by_episode(registry: Registry) -> None:
    index(registry, [1.0, 2.0], warnings=("black", "slow"))
    index(registry, [1.0], "9", warnings=("another's",))
    assert report(registry, 2).warnings == {"black": 2, "slow": 2}
    assert report(registry, 1).warnings == {"black": 1, "slow": 1}


@pytest.mark.parametrize(
    "returns",
    [
        [1.0, 2.0, 4.0],
        [1e9 + 1, 1e9 + 2, 1e9 + 3],  # nothing is left of them in a sum of squares
        [0.0, 0.0],
        [5e-324, -5e-324, 1e-200],
        [-3.5],
    ],
)
def test_mean_and_deviation_are_those_of_the_returns(returns: list[float], registry: Registry) -> None:
    index(registry, returns)
    row = report(registry, len(returns))
    assert row.mean_return == pytest.approx(fmean(returns), abs=1e-300)
    assert row.std_return == pytest.approx(pstdev(returns), rel=1e-9, abs=1e-99)


@pytest.mark.parametrize(
    ("returns", "mean"), [([1.0, math.nan], math.nan), ([1.0, math.inf], math.inf), ([1e300, 3e300], 2e300)]
)
def test_returns_that_no_database_adds_up_are_reported_all_the_same(
    returns: list[float], mean: float, registry: Registry
) -> None:
    index(registry, returns)
    row = report(registry, len(returns))
    assert row.mean_return == pytest.approx(mean, nan_ok=True)
    assert not math.isfinite(row.std_return) or row.std_return == pytest.approx(1e300)
