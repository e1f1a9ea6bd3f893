"""What is published: read from the manifests and the listings beside them, never from the registry."""

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

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
from rlhfblender_core.dataset.size_tables import numbered_sizes
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.storage import DataRoot, each_entry, each_listed, list_sizes, read_many, sizes_of


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

    def sizes(name: str) -> Mapping[int, int]:
        return numbered_sizes(each_entry(root, folders[name]), extensions[name])

    return dict(zip(folders, each_listed(root, sizes, folders), strict=True))


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
