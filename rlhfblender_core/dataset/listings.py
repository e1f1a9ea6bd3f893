"""What there is of experiments and checkpoints, from the names of files alone; nothing is opened here."""

from collections.abc import Collection
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
from rlhfblender_core.errors import InvalidParameterError, StorageNotUsableError
from rlhfblender_core.names import is_name
from rlhfblender_core.registry import Registry
from rlhfblender_core.storage import DataRoot, Entries, list_entries, list_folders

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
    """What there is of a checkpoint, as far as listings tell.

    Attributes:
        key: experiment and checkpoint.
        episodes: by number.
        unknown_files: paths of files, and of folders, that no data set has.
        in_progress: another run works on the experiment: files without manifest are its own.
        left_over: numbers of the episodes that dead runs had claimed: files of theirs without manifest are ours.
    """

    key: CheckpointKey
    episodes: tuple[EpisodeListing, ...]
    unknown_files: tuple[str, ...]
    in_progress: bool = False
    left_over: frozenset[int] = frozenset()


def check_root(root: DataRoot) -> None:
    """Makes sure that there is something at the root.

    Raises:
        StorageNotUsableError: no such folder; no such bucket, or nothing in it below the root.
        StorageUnavailableError: the storage doesn't answer.
    """
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
        known = ", ".join(sorted(registered)[:8]) or "none"
        raise InvalidParameterError(f"There is no experiment {experiment!r} in {root.url}. Registered are: {known}.")
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


def list_checkpoint(
    root: DataRoot,
    key: CheckpointKey,
    with_row: Collection[int],
    *,
    in_progress: bool = False,
    left_over: frozenset[int] = frozenset(),
) -> CheckpointListing:
    """Six listings of a checkpoint, sorted by episode.

    Args:
        root: the data root.
        key: experiment and checkpoint.
        with_row: numbers of the episodes that the registry has rows of.
        in_progress: whether another run works on the experiment.
        left_over: numbers of the episodes that dead runs had claimed.
    """
    manifests, unknown_files = _split(manifest_folder(key), list_entries(root, manifest_folder(key)), ".json")
    files: dict[int, dict[ArtifactKind, int]] = {}
    for kind in ArtifactKind:
        folder = artifact_folder(kind, key)
        entries = list_entries(root, folder)
        numbers, others = _split(folder, entries, EXTENSIONS[kind])
        unknown_files += others
        for number in numbers:
            files.setdefault(number, {})[kind] = entries.sizes[f"{number}{EXTENSIONS[kind]}"]
    known, with_row = set(manifests), frozenset(with_row)
    none: dict[ArtifactKind, int] = {}
    return CheckpointListing(
        key,
        tuple(
            EpisodeListing(number, number in known, number in with_row, tuple(own), tuple(own.values()))
            for number in sorted(known | files.keys() | with_row)
            for own in (files.get(number, none),)
        ),
        tuple(unknown_files),
        in_progress,
        left_over,
    )


def _split(folder: str, entries: Entries, extension: str) -> tuple[list[int], list[str]]:
    """Numbers of the episodes whose files lie there, and paths of everything else."""
    numbers = {name: parse_episode_number(name, extension) for name in sorted(entries.sizes)}
    others = [f"{folder}/{name}" for name, number in numbers.items() if number is None]
    # A folder with the name of an episode's file is found to be no such file.
    others += [f"{folder}/{name}/" for name in entries.folders if parse_episode_number(name, extension) is None]
    return [number for number in numbers.values() if number is not None], others
