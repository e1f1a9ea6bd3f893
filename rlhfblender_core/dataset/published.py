"""What is published: read from the manifests and the listings beside them, never from the registry."""

import contextlib
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlhfblender_core.dataset.layout import (
    EXTENSIONS,
    MANIFESTS,
    ArtifactKind,
    CheckpointKey,
    EpisodeKey,
    artifact_folder,
    artifact_path,
    manifest_folder,
    manifest_path,
    parse_episode_number,
)
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.storage import DataRoot, each_listed, list_sizes, read_many, sizes_of

#: Of a table: numbers for each that is there.
_MAX_SPARSITY = 4


@dataclass(frozen=True)
class Published:
    """A checkpoint's episodes as they lie on the data root.

    Attributes:
        key: experiment and checkpoint.
        manifests: by episode number; an episode exists if and only if it is in here.
        sizes: bytes of the files that are there, by kind and episode number.
    """

    key: CheckpointKey
    manifests: dict[int, Manifest]
    sizes: dict[ArtifactKind, dict[int, int]]

    def is_complete(self, episode: int) -> bool:
        """Whether the episode exists and all its files are there with the sizes recorded."""
        manifest = self.manifests.get(episode)
        return manifest is not None and all(
            self.sizes[kind].get(episode) == record.size for kind, record in manifest.artifacts.items()
        )

    def missing(self, wanted: Iterable[int]) -> tuple[int, ...]:
        """Which of the episodes have to be made."""
        return tuple(episode for episode in wanted if not self.is_complete(episode))

    @property
    def present(self) -> frozenset[int]:
        """Numbers of the episodes of which there is a manifest or a file."""
        return frozenset(self.manifests).union(*self.sizes.values())

    def leftovers(self) -> tuple[str, ...]:
        """Paths of files that belong to no episode: what a dead run had moved before its commit."""
        return tuple(
            artifact_path(kind, EpisodeKey(self.key.experiment, self.key.checkpoint, episode))
            for kind, sizes in self.sizes.items()
            for episode in sorted(sizes)
            if episode not in self.manifests or kind not in self.manifests[episode].artifacts
        )


def read_published(root: DataRoot, key: CheckpointKey, known: Mapping[int, Manifest] | None = None) -> Published:
    """Reads what is published of a checkpoint: six listings and its manifests.

    Args:
        root: the data root.
        key: experiment and checkpoint.
        known: manifests by episode that needn't be read again, if they are still there.

    Raises:
        DataNotUsableError: a manifest can't be read.
    """
    numbers = _numbers(list_sizes(root, manifest_folder(key)), ".json")
    manifests = {number: manifest for number, manifest in (known or {}).items() if number in numbers}
    unread = [number for number in numbers if number not in manifests]
    paths = {manifest_path(EpisodeKey(key.experiment, key.checkpoint, number)): number for number in unread}
    manifests |= {paths[path]: parse_manifest(content, path) for path, content in read_many(root, paths).items()}
    return Published(
        key=key,
        manifests=manifests,
        sizes={kind: list_numbers(root, kind, key) for kind in ArtifactKind},
    )


def read_some(root: DataRoot, key: CheckpointKey, numbers: Iterable[int]) -> Published:
    """What is published of some episodes of a checkpoint: their own files are asked for, nothing is listed.

    Raises:
        DataNotUsableError: a manifest can't be read.
    """
    keys = {number: EpisodeKey(key.experiment, key.checkpoint, number) for number in numbers}
    paths = {manifest_path(own): number for number, own in keys.items()}
    contents = read_many(root, paths)
    manifests = {paths[path]: parse_manifest(content, path) for path, content in contents.items()}
    files = {
        artifact_path(kind, keys[number]): (kind, number) for number, own in manifests.items() for kind in own.artifacts
    }
    sizes: dict[ArtifactKind, dict[int, int]] = {kind: {} for kind in ArtifactKind}
    for path, size in sizes_of(root, files).items():
        kind, number = files[path]
        sizes[kind][number] = size
    return Published(key, manifests, sizes)


def list_numbers(root: DataRoot, kind: ArtifactKind, key: CheckpointKey) -> dict[int, int]:
    """Bytes of a checkpoint's files of one kind, by episode number."""
    return _numbers(list_sizes(root, artifact_folder(kind, key)), EXTENSIONS[kind])


def list_episode_files(root: DataRoot, key: CheckpointKey) -> dict[str, Mapping[int, int]]:
    """Bytes of a checkpoint's files and manifests, by the folder of that kind and by episode number."""
    folders = {MANIFESTS: manifest_folder(key), **{kind.value: artifact_folder(kind, key) for kind in ArtifactKind}}
    extensions = {MANIFESTS: ".json", **{kind.value: EXTENSIONS[kind] for kind in ArtifactKind}}

    def sizes(name: str) -> Mapping[int, int]:  # of one folder: six lists of names at once would be most of the memory
        return _compact(_numbers(list_sizes(root, folders[name]), extensions[name]))

    return dict(zip(folders, each_listed(root, sizes, folders), strict=True))


class _Table(Mapping[int, int]):
    """Bytes by episode number, 8 of memory each.

    Args:
        sizes: by number, −1 for none.
    """

    def __init__(self, sizes: "array[int]") -> None:
        self._sizes = sizes
        self._count = len(sizes) - sizes.count(-1)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number < len(self._sizes) and self._sizes[number] >= 0

    def __getitem__(self, number: int) -> int:
        size: int | None = self.get(number)
        if size is None:
            raise KeyError(number)
        return size

    def get(self, number: int, default: Any = None) -> Any:
        """As of any mapping; in a third of the time."""
        size = self._sizes[number] if 0 <= number < len(self._sizes) else -1
        return default if size < 0 else size

    def __iter__(self) -> Iterator[int]:
        return (number for number, size in enumerate(self._sizes) if size >= 0)

    def __len__(self) -> int:
        return self._count


def _compact(sizes: dict[int, int]) -> Mapping[int, int]:
    """The same in a tenth of the memory, where most numbers up to the highest are there."""
    length = max(sizes, default=-1) + 1
    if length > _MAX_SPARSITY * len(sizes):
        return sizes
    table = array("q", [-1]) * length
    for number, size in sizes.items():
        table[number] = size
    return _Table(table)


def made_meanwhile(root: DataRoot, key: CheckpointKey, digest: str, episodes: Collection[int]) -> dict[int, Manifest]:
    """Manifests of those among the episodes that another run has published by now, from the same request, by number.

    Args:
        root: the data root.
        key: experiment and checkpoint.
        digest: of the request.
        episodes: those that weren't there before.
    """
    paths = {manifest_path(EpisodeKey(key.experiment, key.checkpoint, number)): number for number in episodes}
    made = {}
    for path, content in read_many(root, paths).items():
        with contextlib.suppress(DataNotUsableError):  # damaged: it is made again
            manifest = parse_manifest(content, path)
            if manifest.request_digest == digest:
                made[paths[path]] = manifest
    return made


def _numbers(sizes: Mapping[str, int], extension: str) -> dict[int, int]:
    numbered = {parse_episode_number(name, extension): size for name, size in sizes.items()}
    return {number: size for number, size in numbered.items() if number is not None}
