"""The published episodes of a checkpoint, in blocks: memory stays the same however many there are.

Manifests are read one block at a time. A manifest that was exported before was checked then: its digest tells.
"""

import hashlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rlhfblender_core.dataset.layout import (
    ArtifactKind,
    CheckpointKey,
    EpisodeKey,
    artifact_path,
    manifest_folder,
    manifest_path,
    parse_episode_number,
)
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.dataset.publish import episode_record
from rlhfblender_core.dataset.published import list_numbers
from rlhfblender_core.dataset.selection import EVERYTHING, EpisodeSelection
from rlhfblender_core.storage import DataRoot, list_names, read_many, size_of
from rlhfblender_core.untrusted.json_values import parse_json
from rlhfblender_core.untrusted.limits import MAX_MANIFEST_BYTES

#: Manifests in memory at a time.
_BLOCK = 256

DAMAGED = "is damaged; run `python flows/verify.py --repair`"


@dataclass(frozen=True)
class SourceEpisode:
    """A published episode to export.

    Attributes:
        number: from 0.
        path: of its manifest.
        content: the manifest's bytes.
    """

    number: int
    path: str
    content: bytes

    @cached_property
    def sha256(self) -> str:
        """Of the manifest, in hex: names the episode's bytes, all of them."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest.

        Raises:
            DataNotUsableError: it is damaged.
        """
        return parse_manifest(self.content, self.path)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What the manifest says, without a check that it is whole: for one that is known, 20 times as fast.

        Raises:
            DataNotUsableError: it is no manifest.
        """
        try:
            found = dict(parse_json(self.content, MAX_MANIFEST_BYTES))
            sizes = {ArtifactKind(kind): record["size"] for kind, record in found["artifacts"].items()}
            if all(isinstance(size, int) for size in sizes.values()):
                return found
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        return self.manifest.model_dump()


class CheckpointSource:
    """A checkpoint's published episodes.

    Args:
        root: the data root.
        key: experiment and checkpoint.
        selection: which of them :meth:`blocks` gives.
    """

    def __init__(self, root: DataRoot, key: CheckpointKey, selection: EpisodeSelection = EVERYTHING) -> None:
        self.root = root
        self.key = key
        self.selection = selection

    @cached_property
    def numbers(self) -> "array[int]":
        """Of all its episodes, ascending."""
        names = list_names(self.root, manifest_folder(self.key))
        found = (parse_episode_number(name, ".json") for name in names)
        return array("q", sorted(number for number in found if number is not None))

    def has(self, number: int) -> bool:
        """Whether there is such an episode."""
        place = bisect_left(self.numbers, number)
        return place < len(self.numbers) and self.numbers[place] == number

    def blocks(self, size: int = _BLOCK) -> Iterator[list[SourceEpisode]]:
        """The chosen episodes in order, some at a time; those that are gone by now are left out."""
        for start in range(0, len(self.numbers), size):
            numbers = [number for number in self.numbers[start : start + size] if self.selection.may_have(number)]
            keys = {number: EpisodeKey(self.key.experiment, self.key.checkpoint, number) for number in numbers}
            paths = {number: manifest_path(key) for number, key in keys.items()}
            contents = read_many(self.root, paths.values())
            found = [SourceEpisode(number, path, contents[path]) for number, path in paths.items() if path in contents]
            yield [episode for episode in found if self._is_chosen(episode)]

    def _is_chosen(self, episode: SourceEpisode) -> bool:
        # Without a condition no manifest is read in full for this.
        return self.selection.where is None or self.selection.matches(episode_record(episode.manifest))

    def is_complete(self, facts: Mapping[str, Any], number: int) -> bool:
        """Whether all files that an episode's manifest names are there with the sizes recorded.

        Args:
            facts: what the manifest says.
            number: the episode's.
        """
        sizes = {ArtifactKind(kind): record["size"] for kind, record in facts["artifacts"].items()}
        if not self.root.is_local:
            return all(self._sizes[kind].get(number) == size for kind, size in sizes.items())
        # Where the layout has them, whatever paths a manifest of somebody's names.
        own = EpisodeKey(self.key.experiment, self.key.checkpoint, number)
        folder = self.root.local_folder
        return all(size_of(folder / artifact_path(kind, own)) == size for kind, size in sizes.items())

    @cached_property
    def _sizes(self) -> dict[ArtifactKind, dict[int, int]]:
        """On object storage: one listing per kind instead of a request per file."""
        return {kind: list_numbers(self.root, kind, self.key) for kind in ArtifactKind}


def complete_episodes(source: CheckpointSource, left_out: "Counter[str]") -> Iterator[SourceEpisode]:
    """The chosen episodes whose files are all there, one after the other.

    Args:
        source: the checkpoint.
        left_out: takes the number of the others, by the reason.
    """
    for block in source.blocks():
        for episode in block:
            if source.is_complete(episode.facts, episode.number):
                yield episode
            else:
                left_out[DAMAGED] += 1
