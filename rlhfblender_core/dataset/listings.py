"""What there is of experiments and checkpoints, from the names of files alone; nothing is opened here."""

import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rlhfblender_core.dataset.layout import (
    EXTENSIONS,
    MANIFESTS,
    ArtifactKind,
    CheckpointKey,
    artifact_folder,
    manifest_folder,
    parse_episode_number,
)
from rlhfblender_core.dataset.size_tables import numbered_sizes
from rlhfblender_core.errors import InvalidParameterError, StorageNotUsableError
from rlhfblender_core.names import is_name
from rlhfblender_core.registry import Registry
from rlhfblender_core.storage import DataRoot, Entries, each_entry, list_entries, list_folders, storage_errors
from rlhfblender_core.wording import did_you_mean

_FOLDERS = (MANIFESTS, *(kind.value for kind in ArtifactKind))


@dataclass(frozen=True, slots=True)
class EpisodeListing:
    """What the listings and the registry know of an episode.

    Attributes:
        number: its number.
        has_manifest: whether there is a manifest.
        has_row: whether the registry has a row.
        kinds: which files there are.
        sizes: bytes of these, in the same order.
    """

    number: int
    has_manifest: bool
    has_row: bool
    kinds: tuple[ArtifactKind, ...]
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True)
class CheckpointListing:
    """Some of a checkpoint's episodes, as far as listings tell.

    Attributes:
        key: experiment and checkpoint.
        episodes: by number.
        in_progress: another run works on the experiment: files without manifest are its own.
        left_over: numbers of the episodes that dead runs had claimed: files of theirs without manifest are ours.
    """

    key: CheckpointKey
    episodes: tuple[EpisodeListing, ...]
    in_progress: bool = False
    left_over: frozenset[int] = frozenset()


@dataclass(frozen=True)
class CheckpointFiles:
    """All files of a checkpoint, in 8 bytes of memory each.

    Attributes:
        manifests: their bytes by episode number, ascending.
        artifacts: bytes of the other files, likewise.
        unknown_files: paths of files, and of folders, that no data set has.
    """

    manifests: Mapping[int, int]
    artifacts: Mapping[ArtifactKind, Mapping[int, int]]
    unknown_files: tuple[str, ...]

    def episodes(self, with_row: Mapping[int, object]) -> Iterator[EpisodeListing]:
        """The episodes by number, one after the other.

        Args:
            with_row: those that the registry has rows of, ascending.
        """
        numbers = heapq.merge(self.manifests, *self.artifacts.values(), with_row)
        for number, _ in itertools.groupby(numbers):
            own = {kind: sizes[number] for kind, sizes in self.artifacts.items() if number in sizes}
            yield EpisodeListing(number, number in self.manifests, number in with_row, tuple(own), tuple(own.values()))


def check_root(root: DataRoot) -> None:
    """Makes sure that there is something at the root.

    Raises:
        StorageNotUsableError: no such folder; no such bucket, or nothing in it below the root.
        StorageUnavailableError: the storage doesn't answer.
    """
    with storage_errors(root):  # a name may be too long
        is_there = root.local_folder.is_dir() if root.is_local else bool(list_folders(root, ""))
    if not is_there:
        raise StorageNotUsableError(f"There is no data in {root.url}. Check --data-root.")


def find_keys(root: DataRoot, registry: Registry | None, experiment: str | None) -> list[CheckpointKey]:
    """All checkpoints that have files or rows, of one experiment or all.

    Raises:
        InvalidParameterError: there is no such experiment.
    """
    there = {name for folder in _FOLDERS for name in list_folders(root, folder)} if experiment is None else {experiment}
    keys = {
        CheckpointKey(name, label)
        for name in there
        if is_name(name)
        for folder in _FOLDERS
        for label in list_folders(root, f"{folder}/{name}")
        if is_name(label)
    }
    registered = [] if registry is None else [record.name for record in registry.list_experiments()]
    if registry is not None:
        wanted = [name for name in registered if experiment in (None, name)]
        keys |= {CheckpointKey(name, record.label) for name in wanted for record in registry.list_checkpoints(name)}
    if experiment is not None and not keys and experiment not in registered:
        known = did_you_mean(experiment, sorted(registered))
        raise InvalidParameterError(f"There is no experiment {experiment!r} in {root.url}. {known}")
    return sorted(keys)


def find_unknown_files(root: DataRoot, experiment: str | None) -> list[str]:
    """Paths of files beside the folders of experiments and checkpoints, and of folders that can't be theirs.

    Args:
        root: the data root.
        experiment: beside whose checkpoints to look; None for all.
    """
    found: list[str] = []
    for folder in _FOLDERS:
        if experiment is None:
            entries = list_entries(root, folder)
            found += _unknown_among(folder, entries)
            experiments = [name for name in entries.folders if is_name(name)]
        else:
            experiments = [experiment]
        for name in experiments:
            found += _unknown_among(f"{folder}/{name}", list_entries(root, f"{folder}/{name}"))
    return found


def _unknown_among(folder: str, entries: Entries) -> list[str]:
    files = [f"{folder}/{name}" for name in sorted(entries.sizes)]
    return files + [f"{folder}/{name}/" for name in entries.folders if not is_name(name)]


def list_files(root: DataRoot, key: CheckpointKey) -> CheckpointFiles:
    """Six listings of a checkpoint."""
    unknown_files: list[str] = []

    def sizes(folder: str, extension: str) -> Mapping[int, int]:
        return numbered_sizes(_known(folder, each_entry(root, folder), extension, unknown_files), extension)

    manifests = sizes(manifest_folder(key), ".json")
    artifacts = {kind: sizes(artifact_folder(kind, key), EXTENSIONS[kind]) for kind in ArtifactKind}
    return CheckpointFiles(manifests, artifacts, tuple(sorted(unknown_files)))


def _known(
    folder: str, entries: Iterable[tuple[str, int | None]], extension: str, unknown_files: list[str]
) -> Iterator[tuple[str, int | None]]:
    """The entries that have the name of an episode's file; paths of all others are added to ``unknown_files``.

    A folder that has such a name is found to be no such file.
    """
    for name, size in entries:
        if parse_episode_number(name, extension) is None:
            unknown_files.append(f"{folder}/{name}/" if size is None else f"{folder}/{name}")
        else:
            yield name, size
