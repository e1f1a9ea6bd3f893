"""What exists of a checkpoint: the registry's index, held against one listing of its files by name and size.

Manifests are read only where the index lacks rows: of a registry that was lost, or that an older version wrote. One
more is read, to see that the index is this data root's.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rlhfblender_core.dataset.layout import MANIFESTS, ArtifactKind, CheckpointKey, EpisodeKey, manifest_path
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.dataset.publish import episode_record
from rlhfblender_core.dataset.published import list_episode_files
from rlhfblender_core.registry import EpisodeRecord, Registry
from rlhfblender_core.storage import DataRoot, read_many
from rlhfblender_core.untrusted.json_values import parse_json

#: Manifests that are in memory at once.
_AT_ONCE = 1000


@dataclass(frozen=True)
class Existing:
    """A checkpoint's episodes as far as names, sizes and the index tell.

    Attributes:
        key: experiment and checkpoint.
        committed: numbers of those with a manifest: an episode exists if and only if it is in here.
        complete: those among them whose files are all there with the sizes recorded.
        unnamed: numbers of the episodes that have a file which no manifest names, by kind.
        digests: numbers of those that exist, by the request's digest.
        sample: a manifest of one of them; None where there is none.
        unindexed: rows that the index lacks.
    """

    key: CheckpointKey
    committed: frozenset[int] = frozenset()
    complete: frozenset[int] = frozenset()
    unnamed: Mapping[ArtifactKind, frozenset[int]] = field(default_factory=dict)
    digests: Mapping[str, frozenset[int]] = field(default_factory=dict)
    sample: Manifest | None = None
    unindexed: tuple[EpisodeRecord, ...] = ()

    def missing(self, wanted: Iterable[int]) -> tuple[int, ...]:
        """Which of the episodes have to be made."""
        return tuple(number for number in wanted if number not in self.complete)

    @property
    def present(self) -> frozenset[int]:
        """Numbers of the episodes of which there is a manifest or a file."""
        return self.committed.union(*self.unnamed.values())


def find_existing(root: DataRoot, registry: Registry | None, key: CheckpointKey, digest: str = "") -> Existing:
    """What exists of a checkpoint.

    Args:
        root: the data root.
        registry: None where there is none yet: the manifests tell, then.
        key: experiment and checkpoint.
        digest: of the request whose manifest is wanted as the sample, if there is one.

    Raises:
        DataNotUsableError: a manifest that has to be read can't be.
    """
    files = list_episode_files(root, key)
    found, sample = _Comparison(files), None
    if registry is not None:
        found.add_index(registry.iterate_index(key.experiment, key.checkpoint), digest)
    if found.chosen is not None:
        number, sha256 = found.chosen
        _, sample = next(_read(root, key, [number]), (number, None))
        if sample is None or sample.sha256 != sha256:  # another data root's index
            found, sample = _Comparison(files), None
    unindexed = []
    for number, manifest in _read(root, key, found.unread()):
        row = episode_record(manifest)
        found.add_row(number, manifest.request_digest, row.sizes or {})
        if (row.experiment, row.checkpoint, row.number) == (key.experiment, key.checkpoint, number):
            unindexed.append(row)
        if sample is None or manifest.request_digest == digest != sample.request_digest:
            sample = manifest
    return found.result(key, sample, unindexed)


def _read(root: DataRoot, key: CheckpointKey, numbers: Collection[int]) -> Iterator[tuple[int, Manifest]]:
    """The manifests of these episodes by number, but for those that aren't there any more."""
    left = iter(sorted(numbers))
    while some := list(itertools.islice(left, _AT_ONCE)):
        paths = {manifest_path(EpisodeKey(key.experiment, key.checkpoint, number)): number for number in some}
        for path, content in read_many(root, paths).items():
            yield paths[path], parse_manifest(content, path)


class _Comparison:
    """Of a listing with rows of the index.

    Args:
        files: bytes of each file, by folder and episode.
    """

    def __init__(self, files: Mapping[str, Mapping[int, int]]) -> None:
        self._files = {folder: files[folder] for folder in sorted(files)}
        #: Those that have any, as JSON begins with them: this is asked for every episode.
        self._named = [(f'"{folder}":', own) for folder, own in self._files.items() if own]
        self._manifests = files[MANIFESTS]
        self._complete: set[int] = set()
        self._digests: dict[str, set[int]] = {}
        self._unnamed: dict[str, set[int]] = {folder: set() for folder in files}
        #: Number and manifest's sha256 of the first episode, or of the first that the request wanted has made.
        self.chosen: tuple[int, str] | None = None
        self._is_wanted = False

    def add_index(self, rows: Iterable[tuple[int, str, str | None, str | None]], digest: str) -> None:
        """Adds what :meth:`Registry.iterate_index` gives; rows without a manifest, or of another one, are left out."""
        for number, request, sha256, sizes in rows:
            if sizes is None or sha256 is None or number not in self._manifests:
                continue
            if sizes == self._as_text(number):
                self._complete.add(number)
                self._digests.setdefault(request, set()).add(number)
            else:
                recorded = _recorded(sizes)
                if recorded.get(MANIFESTS) != self._manifests[number]:
                    continue
                self.add_row(number, request, recorded)
            if self.chosen is None or (request == digest and not self._is_wanted):
                self.chosen, self._is_wanted = (number, sha256), request == digest

    def _as_text(self, number: int) -> str:
        """What a row would say of the files that are there."""
        sizes = [(name, files.get(number)) for name, files in self._named]
        return f"{{{','.join([f'{name}{size}' for name, size in sizes if size is not None])}}}"

    def add_row(self, number: int, request: str, recorded: Mapping[str, int]) -> None:
        """Adds an episode whose manifest names files of these sizes."""
        if all(self._files.get(folder, {}).get(number) == size for folder, size in recorded.items()):
            self._complete.add(number)
        self._digests.setdefault(request, set()).add(number)
        for folder, files in self._files.items():
            if number in files and folder not in recorded:
                self._unnamed[folder].add(number)

    def unread(self) -> set[int]:
        """Numbers of the episodes whose manifests tell what no row does."""
        known = self._digests.values()
        return {number for number in self._manifests if not any(number in numbers for numbers in known)}

    def result(self, key: CheckpointKey, sample: Manifest | None, unindexed: Iterable[EpisodeRecord]) -> Existing:
        committed = frozenset[int]().union(*self._digests.values())
        return Existing(
            key,
            committed,
            frozenset(self._complete),
            {
                kind: frozenset(self._unnamed[kind]).union(n for n in self._files[kind] if n not in committed)
                for kind in ArtifactKind
            },
            {request: frozenset(numbers) for request, numbers in self._digests.items()},
            sample,
            tuple(unindexed),
        )


def _recorded(sizes: str) -> Mapping[str, int]:
    """The sizes that a row names; none where it holds something else, so that the manifest is asked."""
    try:
        recorded = parse_json(sizes)
    except ValueError:
        return {}
    return recorded if isinstance(recorded, dict) else {}
