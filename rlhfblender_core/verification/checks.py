"""What is published against what its manifests and the registry say. Nothing is changed here.

Everything that is wrong becomes a :class:`Problem`: one file, or one row of the registry, and one remedy.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from shlex import quote

from rlhfblender_core.dataset.episode_checks import find_fault
from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path, manifest_path
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
from rlhfblender_core.storage import DataRoot, cause_of, fetch_file, list_sizes, read_each, storage_errors

#: What to do with the files of an episode that lie there without a manifest.
IMPORT_ADVICE = "`python flows/import_data.py --exp {} --env …` takes in episodes that were laid there by hand"

_TEMPORARY = (".", "~")


class Remedy(StrEnum):
    """What mends a problem."""

    REMAKE = "make the episode again"
    REMOVE = "remove the file"
    INDEX = "rebuild the registry's index"
    QUARANTINE = "take it in by import_data.py, or move it away by --quarantine"
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
        records: index rows of the episodes whose manifests are sound.
        files: how many files were checked.
    """

    problems: tuple[Problem, ...] = ()
    records: tuple[EpisodeRecord, ...] = ()
    files: int = 0

    def __add__(self, other: "Findings") -> "Findings":
        return Findings(self.problems + other.problems, self.records + other.records, self.files + other.files)


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


def check_episodes(root: DataRoot, listing: CheckpointListing, episodes: Sequence[EpisodeListing]) -> Findings:
    """Checks some of a checkpoint's episodes: their manifests, and all their files against them.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    keys = {episode: EpisodeKey(listing.key.experiment, listing.key.checkpoint, episode.number) for episode in episodes}
    contents = read_each(root, [manifest_path(keys[episode]) for episode in episodes if episode.has_manifest])
    findings = Findings()
    with ExitStack() as stack:
        folder = Path() if root.is_local else stack.enter_context(open_scratch())
        for episode, key in keys.items():
            content = contents.get(manifest_path(key))
            if content is not None:
                findings += _settled(root, key, content, episode.kinds, folder)
            elif not listing.in_progress:
                is_leftover = episode.number in listing.left_over
                findings += Findings(tuple(_uncommitted(key, episode, is_leftover=is_leftover)))
    return findings


def _settled(
    root: DataRoot, key: EpisodeKey, content: bytes | str, kinds: Sequence[ArtifactKind], folder: Path
) -> Findings:
    """What is wrong with a published episode. One that is replaced meanwhile is looked at again."""
    while True:
        findings = _check_published(root, key, content, kinds, folder)
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
    root: DataRoot, key: EpisodeKey, content: bytes | str, kinds: Sequence[ArtifactKind], folder: Path
) -> Findings:
    path = manifest_path(key)
    if isinstance(content, str):
        return Findings((Problem(path, content, Remedy.REMAKE, key),), files=1)
    try:
        manifest = parse_manifest(content, path)
    except DataNotUsableError as error:
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
        for kind in kinds
        if kind not in manifest.artifacts and _is_there(root, artifact_path(kind, key))
    ]
    for kind in manifest.artifacts:
        fault = _fault(root, kind, key, manifest, folder)
        if fault:
            problems.append(Problem(artifact_path(kind, key), fault, Remedy.REMAKE, key))
    return Findings(tuple(problems), (episode_record(manifest),), 1 + len(manifest.artifacts))


def _is_there(root: DataRoot, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return name in list_sizes(root, folder)


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


def check_index(
    root: DataRoot,
    registry: Registry | None,
    listings: Sequence[CheckpointListing],
    records: Sequence[EpisodeRecord],
) -> tuple[Problem, ...]:
    """Rows of the registry that are missing, stale, or say something else than the manifests.

    What a live run has published and not yet indexed, or the other way round, is no problem.
    """
    problems: list[Problem] = []
    for experiment in sorted({listing.key.experiment for listing in listings}):
        own = [record for record in records if record.experiment == experiment]
        if registry is None or registry.find_experiment(experiment) is None:
            if own:
                what = f"is not registered, though {len(own)} of its episodes are published"
                problems.append(Problem(f"registry: experiment {experiment}", what, Remedy.INDEX))
            continue
        # Without a manifest, but with files: to be made again, or another run is about to.
        numbers = {
            (listing.key.checkpoint, episode.number)
            for listing in listings
            if listing.key.experiment == experiment
            for episode in listing.episodes
            if episode.has_manifest or episode.kinds
        }
        found = list(_row_problems(registry.list_episodes(experiment), own, numbers))
        if found and not live_runs(registry, experiment):
            problems += _still_there(root, registry, found, numbers)
    return tuple(problems)


def _still_there(
    root: DataRoot, registry: Registry, found: Sequence[Problem], there: Collection[tuple[str, int]]
) -> Iterator[Problem]:
    """Those among an experiment's row problems that a run hasn't settled since the listings and manifests were read."""
    keys = [problem.key for problem in found if problem.key is not None]
    manifests = read_manifests(root, keys)
    concerned = {(key.checkpoint, key.episode) for key in keys}
    rows = [row for row in registry.list_episodes(keys[0].experiment) if (row.checkpoint, row.number) in concerned]
    published = {(key.checkpoint, key.episode) for key in manifests}
    records = [episode_record(manifest) for manifest in manifests.values()]
    return _row_problems(rows, records, (concerned & set(there)) | published)


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
    rows: Sequence[EpisodeRecord], records: Sequence[EpisodeRecord], there: Collection[tuple[str, int]]
) -> Iterator[Problem]:
    by_key = {(row.checkpoint, row.number): row for row in rows}
    for record in records:
        row = by_key.get((record.checkpoint, record.number))
        if row is None:
            yield _row_problem(record, "has no row")
        elif not _says_the_same(row, record):
            yield _row_problem(record, "has a row that says something else than its manifest")
    for (checkpoint, number), row in by_key.items():
        if (checkpoint, number) not in there:
            yield _row_problem(row, "has a row, but no files")


def _row_problem(record: EpisodeRecord, what: str) -> Problem:
    key = EpisodeKey(record.experiment, record.checkpoint, record.number)
    name = f"registry: episode {key.experiment}/{key.checkpoint}/{key.episode}"
    return Problem(name, what, Remedy.INDEX, key)


#: What rows of older versions don't say; the next run of generate fills it in.
_UNKNOWN_BEFORE = ("sizes", "warnings")


def _says_the_same(row: EpisodeRecord, record: EpisodeRecord) -> bool:
    before, now = asdict(row), asdict(record)
    left_out = {"created_at"} if row.sizes else {"created_at", *_UNKNOWN_BEFORE}
    return all(
        before[name] == value or (isinstance(value, float) and math.isnan(value) and math.isnan(before[name]))
        for name, value in now.items()
        if name not in left_out
    )


def index_problems(problems: Iterable[Problem]) -> list[Problem]:
    """Those among the problems that only the registry's index has."""
    return [problem for problem in problems if problem.remedy is Remedy.INDEX]
