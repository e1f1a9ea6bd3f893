"""Verifying: what is published against what its manifests and the registry say.

Nothing is changed here; see :mod:`rlhfblender_core.repair`.
"""

import hashlib
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhfblender_core.argument_types import check_arguments
from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.listings import (
    CheckpointListing,
    EpisodeListing,
    check_root,
    find_keys,
    find_unknown_files,
    list_files,
)
from rlhfblender_core.dataset.size_tables import size_table
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.registry import registry_if_any
from rlhfblender_core.runs.claims import dead_claims, live_runs
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.step_runner import LocalRunner, StepRunner, concurrency_for
from rlhfblender_core.verification.checks import (
    Findings,
    Problem,
    check_episodes,
    check_registered,
    check_rows,
    check_unknown_files,
)
from rlhfblender_core.verification.journal import note_sound, open_journal, read_sound
from rlhfblender_core.verification.quarantine import move_to_quarantine
from rlhfblender_core.wording import InWords, counted

#: So many episodes are checked in one step: some seconds' work, of short ones …
_EPISODES_AT_ONCE, _EPISODES_AT_ONCE_QUICK = 250, 1000
#: … and of long ones, after so many bytes, which are read and decoded unless the check is quick.
_BYTES_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class Part:
    """Some of a checkpoint's episodes, checked in one step: where their listing lies.

    Attributes:
        key: experiment and checkpoint.
        first: number of the first episode.
        last: number of the last one.
        folder: of the run, on this machine.
        digest: of what the listing says of these episodes.
    """

    key: CheckpointKey
    first: int
    last: int
    folder: Path
    digest: str

    @property
    def file(self) -> Path:
        """The listing of these episodes."""
        digest = hashlib.sha256(f"{self.key.experiment}/{self.key.checkpoint}".encode()).hexdigest()[:32]
        return self.folder / f"{digest}-{self.first}"


@dataclass(frozen=True)
class Listed:
    """What listing a checkpoint brought.

    Attributes:
        parts: its episodes, in parts.
        unknown_files: paths of files, and of folders, that no data set has.
    """

    parts: tuple[Part, ...]
    unknown_files: tuple[str, ...]


@dataclass(frozen=True)
class Verification(InWords):
    """What a run of verify found, and what it repaired.

    Attributes:
        found: what was wrong at first.
        left: what is wrong now.
        notes: why something could not be repaired.
        episodes: number of episodes whose manifests are sound.
        files: number of files that were checked.
        sound: number of those episodes, by checkpoint.
        earlier: number of those that an earlier check found sound, before it was cut short.
    """

    found: tuple[Problem, ...]
    left: tuple[Problem, ...]
    notes: tuple[str, ...]
    episodes: int
    files: int
    sound: Mapping[CheckpointKey, int]
    earlier: int = 0

    @property
    def summary(self) -> str:
        """One line about everything."""
        checked = f"{counted(self.episodes, 'episode')}, {counted(self.files, 'file')} checked"
        if self.earlier:
            checked += f" ({counted(self.earlier, 'episode')} by a check that was cut short)"
        repaired = len(set(self.found) - set(self.left))
        if self.left:
            return f"{checked}: {counted(len(self.left), 'problem')} left, {repaired} repaired."
        if repaired:
            return f"{checked}: {counted(repaired, 'problem')} repaired, nothing is wrong any more."
        return f"{checked}: nothing is wrong."

    def __str__(self) -> str:
        return "\n".join([*map(str, self.left), *self.notes, self.summary])


@check_arguments
def verify(  # noqa: PLR0913 (the command's flags, by keyword)
    *,
    exp: str | None = None,
    quick: bool = False,
    quarantine: bool = False,
    workers: int | None = None,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Checks every published file against its manifest and the registry, without Prefect.

    Args:
        exp: experiment; None for all.
        quick: whether names, sizes and the manifests' own digests are enough; no other file is opened.
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
    return verify_all(exp, LocalRunner(), locations, workers, quick=quick, quarantine=quarantine)


def verify_all(
    exp: str | None,
    runner: StepRunner,
    locations: Locations,
    workers: int | None = None,
    *,
    quick: bool = False,
    quarantine: bool = False,
) -> Verification:
    """Checks what is published, by the runner's steps.

    Args:
        exp: experiment; None for all.
        runner: how each step is run.
        locations: what is checked.
        workers: checks at once; None for the cores that this process may use.
        quick: whether files' sizes are enough.
        quarantine: whether to move unknown files below ``quarantine/<date>/``.
    """
    check_root(locations.open_root())
    first = now = survey(exp, runner, locations, workers, quick=quick)
    if quarantine and runner.do(move_to_quarantine, first.problems, locations):
        now = survey(exp, runner, locations, workers, quick=quick)
    return verification(first, now, ())


def verification(first: Findings, now: Findings, notes: Iterable[str]) -> Verification:
    """What was found at first, and what is left now."""
    return Verification(
        first.problems,
        now.problems,
        tuple(notes),
        sum(now.sound.values()),
        now.files,
        dict(now.sound),
        now.earlier,
    )


def survey(
    exp: str | None, runner: StepRunner, locations: Locations, workers: int | None = None, *, quick: bool = False
) -> Findings:
    """Looks at everything; files are checked side by side.

    Args:
        exp: experiment; None for all.
        runner: how each step is run.
        locations: what is checked.
        workers: checks at once; None for the cores that this process may use.
        quick: whether files' sizes are enough, so that only manifests are read.
    """
    concurrency = concurrency_for(locations, workers)
    keys = runner.do(find_checkpoints, exp, locations)
    # Listings go into a folder: they are too long to be handed from step to step.
    with open_scratch() as folder, open_journal(locations, quick=quick) as journal:
        calls = ({"key": key, "folder": folder, "locations": locations, "quick": quick} for key in keys)
        listed = runner.do_each(list_episodes, calls, concurrency)
        parts = {part.digest: part for own in listed for part in own.parts}
        earlier = read_sound(journal)
        found = [earlier[digest] for digest in parts if digest in earlier]
        left = [part for digest, part in parts.items() if digest not in earlier]
        calls = ({"part": part, "journal": journal, "locations": locations, "quick": quick} for part in left)
        found += runner.do_each(check_files, calls, concurrency, total=len(left))
    found.append(runner.do(find_unknown, exp, [path for own in listed for path in own.unknown_files], locations))
    findings = Findings.joined(found)
    published = Counter(record.experiment for record in findings.records)
    if published:
        found = [Findings(runner.do(find_unregistered, dict(published), locations)), findings]
        findings = Findings.joined(reversed(found))
    return findings


def find_checkpoints(experiment: str | None, locations: Locations) -> list[CheckpointKey]:
    """All checkpoints that have files or rows, of one experiment or all."""
    with registry_if_any(locations.database_url) as registry:
        return find_keys(locations.open_root(), registry, experiment)


def list_episodes(key: CheckpointKey, folder: Path, locations: Locations, *, quick: bool) -> Listed:
    """Lists a checkpoint into the folder: what there is, as far as listings and the registry tell.

    Args:
        key: experiment and checkpoint.
        folder: of the run, on this machine.
        locations: data root and registry.
        quick: whether the parts are for a quick check, of which more go into one.
    """
    rows, in_progress, left_over = _registered(key, locations)
    # After the rows and runs: what is published meanwhile is in progress.
    files = list_files(locations.open_root(), key)
    parts = []
    for episodes in _cut(files.episodes(rows), quick=quick):
        numbers = frozenset(episode.number for episode in episodes)
        own = CheckpointListing(key, episodes, in_progress, left_over & numbers)
        digest = hashlib.sha256(repr((key, episodes)).encode()).hexdigest()
        part = Part(key, episodes[0].number, episodes[-1].number, folder, digest)
        part.file.write_bytes(pickle.dumps(own))
        parts.append(part)
    return Listed(tuple(parts), files.unknown_files)


def _cut(episodes: Iterable[EpisodeListing], *, quick: bool) -> Iterator[tuple[EpisodeListing, ...]]:
    """The episodes in parts that take about as long."""
    most = _EPISODES_AT_ONCE_QUICK if quick else _EPISODES_AT_ONCE
    part: list[EpisodeListing] = []
    held = 0
    for episode in episodes:
        part.append(episode)
        held += 0 if quick else sum(episode.sizes)
        if len(part) == most or held >= _BYTES_AT_ONCE:
            yield tuple(part)
            part, held = [], 0
    if part:
        yield tuple(part)


def _registered(key: CheckpointKey, locations: Locations) -> tuple[Mapping[int, int], bool, frozenset[int]]:
    """Of a checkpoint the episodes with rows, whether another run works on it, and what dead runs had claimed."""
    with registry_if_any(locations.database_url) as registry:
        if registry is None:
            return {}, False, frozenset()
        return (
            size_table((number, 0) for number in registry.each_number(key.experiment, key.checkpoint)),
            bool(live_runs(registry, key.experiment)),
            dead_claims(registry, key.experiment).get(key.checkpoint, frozenset()),
        )


def check_files(part: Part, journal: Path, locations: Locations, *, quick: bool) -> Findings:
    """Checks these episodes' files against their manifests, and their rows; notes down if they are sound."""
    root = locations.open_root()
    listing: CheckpointListing = pickle.loads(part.file.read_bytes())  # noqa: S301 (this run wrote it, in its own folder)
    findings = check_episodes(root, listing, listing.episodes, quick=quick)
    with registry_if_any(locations.database_url) as registry:
        rows = check_rows(root, registry, listing, findings.records)
    all_found = Findings.joined([replace(findings, records=()), rows])
    if not (all_found.problems or all_found.records):
        note_sound(journal, part.digest, all_found)
    return all_found


def find_unknown(experiment: str | None, unknown_files: Sequence[str], locations: Locations) -> Findings:
    """Names what lies among the data and is no part of it."""
    return check_unknown_files([*find_unknown_files(locations.open_root(), experiment), *unknown_files])


def find_unregistered(published: Mapping[str, int], locations: Locations) -> tuple[Problem, ...]:
    """Experiments that have episodes and aren't registered."""
    with registry_if_any(locations.database_url) as registry:
        return check_registered(registry, published)
