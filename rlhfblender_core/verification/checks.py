"""What is published against what its manifests and the registry say. Nothing is changed here.

Everything that is wrong becomes a :class:`Problem`: one file, or one row of the registry, and one remedy.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from shlex import quote

from rlhfblender_core.dataset.episode_checks import find_fault
from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey, EpisodeKey, artifact_path, manifest_path
from rlhfblender_core.dataset.listings import (
    CheckpointListing,
    EpisodeListing,
)
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.dataset.publish import episode_record
from rlhfblender_core.errors import DataNotUsableError, StorageNotUsableError
from rlhfblender_core.registry import EpisodeRecord, Registry
from rlhfblender_core.runs.claims import live_runs
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.storage import DataRoot, cause_of, fetch_file, read_each, sizes_of, storage_errors

#: What to do with the files of an episode that lie there without a manifest.
IMPORT_ADVICE = "`python flows/import_data.py --exp {} --env …` takes in episodes that were laid there by hand"

_TEMPORARY = (".", "~")


class Remedy(StrEnum):
    """What mends a problem."""

    REMAKE = "make the episode again"
    REMOVE = "remove the file"
    INDEX = "rebuild the registry's index"
    QUARANTINE = "take it in by an import, or move it away by --quarantine"
    BY_HAND = "by hand"


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: of the file below the data root; ``registry: …`` for a row.
        what: what is wrong with it, as the end of a line that names it.
        remedy: what mends it.
        key: the episode it concerns, None for what belongs to none.
    """

    path: str
    what: str
    remedy: Remedy
    key: EpisodeKey | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(frozen=True)
class Findings:
    """What checking some episodes brought.

    Attributes:
        problems: in the order of the files.
        records: what the manifests say of the episodes whose rows are missing or say something else. Those of sound
            ones aren't kept: there may be a million.
        files: how many files were checked.
        sound: number of episodes whose manifests are sound, by checkpoint.
        earlier: number of those that an earlier check found sound, before it was cut short.
    """

    problems: tuple[Problem, ...] = ()
    records: tuple[EpisodeRecord, ...] = ()
    files: int = 0
    sound: Mapping[CheckpointKey, int] = field(default_factory=dict)
    earlier: int = 0

    @classmethod
    def joined(cls, parts: Iterable["Findings"]) -> "Findings":
        """All of them, those of the registry's index last."""
        problems: list[Problem] = []
        records: list[EpisodeRecord] = []
        files, earlier, sound = 0, 0, Counter[CheckpointKey]()
        for part in parts:
            problems += part.problems
            records += part.records
            files += part.files
            earlier += part.earlier
            sound.update(part.sound)
        problems.sort(key=lambda problem: problem.remedy is Remedy.INDEX)
        return cls(tuple(problems), tuple(records), files, sound, earlier)


def check_unknown_files(paths: Iterable[str]) -> Findings:
    """Problems of files and folders that no data set has; hidden ones (of file managers) don't matter.

    Args:
        paths: of them; a folder's ends with a slash.
    """
    problems = []
    for path in paths:
        if not path.rstrip("/").rpartition("/")[2].startswith(_TEMPORARY):
            kind = "folder" if path.endswith("/") else "file"
            problems.append(Problem(path, f"is no {kind} of a data set; move it away", Remedy.QUARANTINE))
    return Findings(tuple(problems))


def check_episodes(
    root: DataRoot, listing: CheckpointListing, episodes: Sequence[EpisodeListing], *, quick: bool = False
) -> Findings:
    """Checks some of a checkpoint's episodes: their manifests, and all their files against them.

    Args:
        root: the data root.
        listing: of the checkpoint.
        episodes: which of it.
        quick: whether files' sizes are enough, so that none is opened.

    Returns:
        What is wrong, and the records of all whose manifests are sound.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    keys = {episode: EpisodeKey(listing.key.experiment, listing.key.checkpoint, episode.number) for episode in episodes}
    contents = read_each(root, [manifest_path(keys[episode]) for episode in episodes if episode.has_manifest])
    found: list[Findings] = []
    with ExitStack() as stack:
        folder = None if quick else Path() if root.is_local else stack.enter_context(open_scratch())
        for episode, key in keys.items():
            content = contents.get(manifest_path(key))
            if content is not None:
                found.append(_settled(root, key, content, episode, folder))
            elif not listing.in_progress:
                is_leftover = episode.number in listing.left_over
                found.append(Findings(tuple(_uncommitted(key, episode, is_leftover=is_leftover))))
    return Findings.joined(found)


def _settled(
    root: DataRoot, key: EpisodeKey, content: bytes | str, episode: EpisodeListing, folder: Path | None
) -> Findings:
    """What is wrong with a published episode. One that is replaced meanwhile is looked at again."""
    while True:
        findings = _check_published(root, key, content, episode, folder)
        if not findings.problems:
            return findings
        # A run takes the manifest away before it touches the files, so the same one means: nobody is at work here.
        now = read_each(root, [manifest_path(key)]).get(manifest_path(key))
        if now == content:
            return findings
        if now is None:  # deleted, or about to be published anew
            return Findings()
        content = now


def _uncommitted(key: EpisodeKey, episode: EpisodeListing, *, is_leftover: bool) -> Iterator[Problem]:
    """Problems of an episode without manifest.

    Where the registry knows it, the manifest was lost; where a dead run had claimed it, it is what that left. Anything
    else is somebody's, and not ours to touch.
    """
    if episode.has_row and episode.kinds:
        yield Problem(manifest_path(key), "is missing", Remedy.REMAKE, key)
    elif not episode.has_row:
        for kind in episode.kinds:
            path = artifact_path(kind, key)
            if is_leftover:
                yield Problem(path, "was left by a run that died", Remedy.REMOVE, key)
            else:
                yield Problem(
                    path, f"is an unknown file; {IMPORT_ADVICE.format(quote(key.experiment))}", Remedy.QUARANTINE, key
                )


def _check_published(
    root: DataRoot, key: EpisodeKey, content: bytes | str, episode: EpisodeListing, folder: Path | None
) -> Findings:
    path = manifest_path(key)
    if isinstance(content, str):
        return Findings((Problem(path, content, Remedy.REMAKE, key),), files=1)
    try:
        manifest = parse_manifest(content, path)
    except DataNotUsableError as error:
        if not episode.has_row and not episode.kinds:  # nothing says that it ever was an episode's
            return Findings((Problem(path, "is an unknown file: no manifest", Remedy.QUARANTINE, key),), files=1)
        newer = "newer than" in str(error)
        what = str(error) if newer else "is damaged"
        return Findings((Problem(path, what, Remedy.BY_HAND if newer else Remedy.REMAKE, key),), files=1)
    if EpisodeKey(manifest.experiment, manifest.checkpoint, manifest.episode) != key:
        of = f"{manifest.experiment}/{manifest.checkpoint}/{manifest.episode}"
        return Findings((Problem(path, f"is the manifest of another episode, {of}", Remedy.REMAKE, key),), files=1)
    problems = [
        Problem(
            artifact_path(kind, key), "is an unknown file: its episode has none of that kind", Remedy.QUARANTINE, key
        )
        for kind in episode.kinds
        if kind not in manifest.artifacts and _is_there(root, artifact_path(kind, key))
    ]
    sizes = dict(zip(episode.kinds, episode.sizes, strict=True))
    for kind, record in manifest.artifacts.items():
        if folder is None:
            fault = _wrong_size(root, artifact_path(kind, key), sizes.get(kind), record.size)
        else:
            fault = _fault(root, kind, key, manifest, folder)
        if fault:
            problems.append(Problem(artifact_path(kind, key), fault, Remedy.REMAKE, key))
    checkpoint = CheckpointKey(key.experiment, key.checkpoint)
    return Findings(tuple(problems), (episode_record(manifest),), 1 + len(manifest.artifacts), {checkpoint: 1})


def _is_there(root: DataRoot, path: str) -> bool:
    return path in sizes_of(root, [path])


def _wrong_size(root: DataRoot, path: str, listed: int | None, expected: int) -> str | None:
    """What is wrong with a file by its size; asked for again where the listing says so, which may be out of date."""
    if listed == expected:
        return None
    size = sizes_of(root, [path]).get(path)
    if size is None:
        return "is missing"
    return None if size == expected else f"has {size:,} bytes instead of {expected:,}"


def _fault(root: DataRoot, kind: ArtifactKind, key: EpisodeKey, manifest: Manifest, folder: Path) -> str | None:
    path = artifact_path(kind, key)
    try:
        with storage_errors(root):
            file = fetch_file(root, path, folder)
            try:
                return find_fault(kind, file, manifest)
            finally:
                if not root.is_local:
                    file.unlink()
    except FileNotFoundError:
        return "is missing"
    except StorageNotUsableError as error:
        if not root.is_local:
            raise
        return f"can't be read: {cause_of(error)}"


def check_rows(
    root: DataRoot, registry: Registry | None, part: CheckpointListing, records: Sequence[EpisodeRecord]
) -> Findings:
    """Rows of the registry that are missing, stale, or say something else than the manifests; and what these say.

    What a live run has published and not yet indexed, or the other way round, is no problem. Of an experiment that
    isn't registered all records are returned, and no problem: that is told once, see :func:`check_registered`.

    Args:
        root: the data root.
        registry: None where there is none.
        part: some of a checkpoint's episodes, ascending.
        records: of those whose manifests are sound.
    """
    key = part.key
    if registry is None or registry.find_experiment(key.experiment) is None:
        return Findings(records=tuple(records))
    # Without a manifest, but with files: to be made again, or another run is about to.
    there = {episode.number for episode in part.episodes if episode.has_manifest or episode.kinds}
    span = part.episodes[0].number, part.episodes[-1].number
    found = list(_row_problems(registry.episodes_between(key.experiment, key.checkpoint, *span), records, there))
    if not found or live_runs(registry, key.experiment):
        return Findings()
    # A run may have settled them since the listings and manifests were read.
    concerned = {problem.key.episode: problem.key for problem in found if problem.key is not None}
    manifests = read_manifests(root, concerned.values())
    published = {own.episode for own in manifests}
    rows = registry.episodes_between(key.experiment, key.checkpoint, min(concerned), max(concerned))
    now = [episode_record(manifest) for manifest in manifests.values()]
    own_rows = [row for row in rows if row.number in concerned]
    return Findings(tuple(_row_problems(own_rows, now, (concerned.keys() & there) | published)), tuple(now))


def check_registered(registry: Registry | None, published: Mapping[str, int]) -> tuple[Problem, ...]:
    """Experiments that the registry has lost.

    Args:
        registry: None where there is none.
        published: number of episodes whose rows aren't right, by experiment.
    """
    return tuple(
        Problem(
            f"registry: experiment {experiment}",
            f"is not registered, though {number} of its episodes are published",
            Remedy.INDEX,
        )
        for experiment, number in sorted(published.items())
        if registry is None or registry.find_experiment(experiment) is None
    )


def read_manifests(root: DataRoot, keys: Iterable[EpisodeKey]) -> dict[EpisodeKey, Manifest]:
    """The sound manifests among these episodes'."""
    paths = {manifest_path(key): key for key in keys}
    found = {}
    for path, content in read_each(root, list(paths)).items():
        if isinstance(content, str):
            continue
        try:
            manifest = parse_manifest(content, path)
        except DataNotUsableError:
            continue
        if EpisodeKey(manifest.experiment, manifest.checkpoint, manifest.episode) == paths[path]:
            found[paths[path]] = manifest
    return found


def _row_problems(
    rows: Sequence[EpisodeRecord], records: Sequence[EpisodeRecord], there: Collection[int]
) -> Iterator[Problem]:
    by_number = {row.number: row for row in rows}
    for record in records:
        row = by_number.get(record.number)
        if row is None:
            yield _row_problem(record, "has no row")
        elif not _says_the_same(row, record):
            yield _row_problem(record, "has a row that says something else than its manifest")
    for number, row in by_number.items():
        if number not in there:
            yield _row_problem(row, "has a row, but no files")


def _row_problem(record: EpisodeRecord, what: str) -> Problem:
    key = EpisodeKey(record.experiment, record.checkpoint, record.number)
    name = f"registry: episode {key.experiment}/{key.checkpoint}/{key.episode}"
    return Problem(name, what, Remedy.INDEX, key)


#: What rows of older versions don't say; the next run of generate fills it in.
_UNKNOWN_BEFORE = frozenset({"sizes", "warnings"})
_SAID = frozenset(one.name for one in fields(EpisodeRecord)) - {"created_at"}


def _says_the_same(row: EpisodeRecord, record: EpisodeRecord) -> bool:
    names = _SAID if row.sizes else _SAID - _UNKNOWN_BEFORE
    return all(_is_same(getattr(row, name), getattr(record, name)) for name in names)


def _is_same(before: object, now: object) -> bool:
    both_nan = isinstance(now, float) and isinstance(before, float) and math.isnan(now) and math.isnan(before)
    return before == now or both_nan


def index_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Those among the problems that only the registry's index has."""
    return [problem for problem in problems if problem.remedy is Remedy.INDEX]
