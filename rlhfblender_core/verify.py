"""Verifying: what is published against what its manifests and the registry say.

Nothing is changed here; see :mod:`rlhfblender_core.repair`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.listings import (
    CheckpointListing,
    EpisodeListing,
    check_root,
    find_keys,
    find_unknown_files,
    list_checkpoint,
)
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.registry import EpisodeRecord, registry_if_any
from rlhfblender_core.runs.claims import dead_claims, live_runs
from rlhfblender_core.step_runner import LocalRunner, StepRunner, concurrency_for
from rlhfblender_core.verification.checks import (
    Findings,
    Problem,
    check_episodes,
    check_index,
    check_unknown_files,
)
from rlhfblender_core.verification.quarantine import move_to_quarantine
from rlhfblender_core.wording import counted

#: So many episodes are checked in one step.
_EPISODES_AT_ONCE = 25


@dataclass(frozen=True)
class Survey:
    """What there is, and what is wrong with it."""

    listings: tuple[CheckpointListing, ...]
    findings: Findings


@dataclass(frozen=True)
class Verification:
    """What a run of verify found, and what it repaired.

    Attributes:
        found: what was wrong at first.
        left: what is wrong now.
        notes: why something could not be repaired.
        episodes: number of episodes whose manifests are sound.
        files: number of files that were checked.
        sound: number of those episodes, by checkpoint.
    """

    found: tuple[Problem, ...]
    left: tuple[Problem, ...]
    notes: tuple[str, ...]
    episodes: int
    files: int
    sound: Mapping[CheckpointKey, int]

    @property
    def summary(self) -> str:
        """One line about everything."""
        checked = f"{counted(self.episodes, 'episode')}, {counted(self.files, 'file')} checked"
        repaired = len(set(self.found) - set(self.left))
        if self.left:
            return f"{checked}: {counted(len(self.left), 'problem')} left, {repaired} repaired."
        if repaired:
            return f"{checked}: {counted(repaired, 'problem')} repaired, nothing is wrong any more."
        return f"{checked}: nothing is wrong."


def verify(
    *,
    exp: str | None = None,
    quarantine: bool = False,
    workers: int | None = None,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Checks every published file against its manifest and the registry, without Prefect.

    Args:
        exp: experiment; None for all.
        quarantine: whether to move unknown files below ``quarantine/<date>/``; nothing is deleted.
        workers: checks at once; None for the cores that this process may use.
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.

    Raises:
        RequestError: there is no such data root or experiment.
        TransientError: the storage or the registry is gone.
    """
    locations = locate(data_root, database_url, storage_options)
    return verify_all(exp, LocalRunner(), locations, workers, quarantine=quarantine)


def verify_all(
    exp: str | None,
    runner: StepRunner,
    locations: Locations,
    workers: int | None = None,
    *,
    quarantine: bool = False,
) -> Verification:
    """Checks what is published, by the runner's steps.

    Args:
        exp: experiment; None for all.
        runner: how each step is run.
        locations: what is checked.
        workers: checks at once; None for the cores that this process may use.
        quarantine: whether to move unknown files below ``quarantine/<date>/``.
    """
    check_root(locations.open_root())
    first = now = survey(exp, runner, locations, workers).findings
    if quarantine and runner.do(move_to_quarantine, first.problems, locations):
        now = survey(exp, runner, locations, workers).findings
    return verification(first, now, ())


def verification(first: Findings, now: Findings, notes: Iterable[str]) -> Verification:
    """What was found at first, and what is left now."""
    sound = Counter(CheckpointKey(record.experiment, record.checkpoint) for record in now.records)
    return Verification(first.problems, now.problems, tuple(notes), sound.total(), now.files, sound)


def survey(exp: str | None, runner: StepRunner, locations: Locations, workers: int | None = None) -> Survey:
    """Looks at everything; files are checked side by side."""
    concurrency = concurrency_for(locations, workers)
    keys = runner.do(find_checkpoints, exp, locations)
    listings = runner.do_each(list_episodes, ({"key": key, "locations": locations} for key in keys), concurrency)
    parts = (
        {"listing": listing, "episodes": part, "locations": locations}
        for listing in listings
        for part in _parts(listing)
    )
    findings = sum(runner.do_each(check_files, parts, concurrency), Findings())
    findings += runner.do(find_unknown, exp, listings, locations)
    findings += Findings(runner.do(check_registry, listings, findings.records, locations))
    return Survey(tuple(listings), findings)


def _parts(listing: CheckpointListing) -> Iterator[Sequence[EpisodeListing]]:
    for start in range(0, len(listing.episodes), _EPISODES_AT_ONCE):
        yield listing.episodes[start : start + _EPISODES_AT_ONCE]


def find_checkpoints(experiment: str | None, locations: Locations) -> list[CheckpointKey]:
    """All checkpoints that have files or rows, of one experiment or all."""
    with registry_if_any(locations.database_url) as registry:
        return find_keys(locations.open_root(), registry, experiment)


def list_episodes(key: CheckpointKey, locations: Locations) -> CheckpointListing:
    """What there is of a checkpoint, as far as listings and the registry tell."""
    root = locations.open_root()
    with registry_if_any(locations.database_url) as registry:
        if registry is None:
            return list_checkpoint(root, key, ())
        return list_checkpoint(
            root,
            key,
            registry.list_episodes(key.experiment, key.checkpoint),
            in_progress=bool(live_runs(registry, key.experiment)),
            left_over=dead_claims(registry, key.experiment).get(key.checkpoint, frozenset()),
        )


def check_files(listing: CheckpointListing, episodes: Sequence[EpisodeListing], locations: Locations) -> Findings:
    """Checks these episodes' files against their manifests."""
    return check_episodes(locations.open_root(), listing, episodes)


def find_unknown(experiment: str | None, listings: Sequence[CheckpointListing], locations: Locations) -> Findings:
    """Names what lies among the data and is no part of it."""
    paths = find_unknown_files(locations.open_root(), experiment)
    return check_unknown_files([*paths, *(path for listing in listings for path in listing.unknown_files)])


def check_registry(
    listings: Sequence[CheckpointListing], records: Sequence[EpisodeRecord], locations: Locations
) -> tuple[Problem, ...]:
    """Compares the registry's rows with the manifests."""
    with registry_if_any(locations.database_url) as registry:
        return check_index(locations.open_root(), registry, listings, records)
