"""What was made again, against what lies in its places: nothing intact is replaced, and nothing unknown.

People may have given feedback on an episode whose thumbnail got lost. Where the environment isn't determined by its
seed, or a library was upgraded, making it again gives another episode: putting that in its place would be worse than
the loss. So an episode counts as made again only if all that is intact came out the same.
"""

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from shlex import quote

from rlhfblender_core.dataset.derive import derivable_kinds, derive_files, with_records
from rlhfblender_core.dataset.episode_checks import find_fault
from rlhfblender_core.dataset.layout import (
    RANDOM,
    ArtifactKind,
    CheckpointKey,
    EpisodeKey,
    artifact_path,
    manifest_path,
)
from rlhfblender_core.dataset.manifests import ArtifactRecord, Manifest, parse_manifest
from rlhfblender_core.dataset.staged import StagedEpisode, StagedShard
from rlhfblender_core.errors import DataNotUsableError, StorageNotUsableError, one_line
from rlhfblender_core.registry import EpisodeRecord, Registry
from rlhfblender_core.storage import DataRoot, fetch_file, read_each, sizes_of, storage_errors

#: What the episode consists of: where one of these came out otherwise, it is another episode.
_EPISODE_ITSELF = (ArtifactKind.EPISODES, ArtifactKind.REWARDS, ArtifactKind.UNCERTAINTY)


def keep_intact(root: DataRoot, registry: Registry | None, staged: StagedShard) -> StagedShard:
    """The shard with what may be published of it; the others are its failures, with what to do. May be repeated.

    Args:
        root: the data root.
        registry: knows of episodes whose manifests were lost; None where there is none.
        staged: what was made.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    # A look at a disk costs nothing: what was laid there meanwhile isn't replaced either. Elsewhere it is a request.
    compared = [each for each in staged.episodes if root.is_local or each.manifest.episode in staged.present]
    if not compared:
        return staged
    places = _Places(root, [_key(episode.manifest) for episode in compared])
    numbers = {episode.manifest.episode for episode in compared}
    kept = [episode for episode in staged.episodes if episode.manifest.episode not in numbers]
    refusals: dict[int, str] = {}
    for episode in compared:
        number = episode.manifest.episode
        check = _Comparison(places, registry, episode, staged, is_ours=number in staged.ours)
        try:
            kept.append(check.publishable())
        except DataNotUsableError as error:
            refusals[number] = one_line(error)
    return replace(staged, episodes=tuple(kept), failures={**staged.failures, **refusals})


class _Places:
    """What lies where some episodes belong."""

    def __init__(self, root: DataRoot, keys: Iterable[EpisodeKey]) -> None:
        self.root = root
        paths = {key: {kind: artifact_path(kind, key) for kind in ArtifactKind} for key in keys}
        manifests = {key: manifest_path(key) for key in paths}
        existing = _existing(root, [*manifests.values(), *(path for own in paths.values() for path in own.values())])
        contents = read_each(root, [path for path in manifests.values() if path in existing])
        self.contents = {key: contents.get(path) for key, path in manifests.items()}
        self.sizes = {
            key: {kind: existing[path] for kind, path in own.items() if path in existing} for key, own in paths.items()
        }

    def manifest(self, key: EpisodeKey) -> Manifest | None:
        """The episode's manifest, if it is sound."""
        content = self.contents[key]
        if not isinstance(content, bytes):
            return None
        try:
            manifest = parse_manifest(content, manifest_path(key))
        except DataNotUsableError:
            return None
        return manifest if _key(manifest) == key else None


def _existing(root: DataRoot, paths: Iterable[str]) -> dict[str, int]:
    """Sizes in bytes of what is there, a link that leads nowhere included; on object storage a request each."""
    if not root.is_local:
        return sizes_of(root, paths)
    sizes = {}
    with storage_errors(root):
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                sizes[path] = os.lstat(root.full_path(path)).st_size
    return sizes


@dataclass(frozen=True)
class _Comparison:
    """One episode that was made, and what lies in its places."""

    places: _Places
    registry: Registry | None
    episode: StagedEpisode
    shard: StagedShard
    is_ours: bool

    @cached_property
    def key(self) -> EpisodeKey:
        return _key(self.episode.manifest)

    @property
    def name(self) -> str:
        return f"{self.key.experiment}/{self.key.checkpoint}/{self.key.episode}"

    def publishable(self) -> StagedEpisode:
        """The episode as it may be published: all of it, or the files that are broken.

        Raises:
            DataNotUsableError: it may not.
        """
        before = self.places.manifest(self.key)
        if before is None:
            return self._without_manifest()
        self._check_unknown(set(self.places.sizes[self.key]) - set(before.artifacts))
        if self.shard.replace or before.content == self.episode.manifest.content:
            return self.episode
        if before.request_digest not in {self.episode.manifest.request_digest, *self.shard.older_digests}:
            raise DataNotUsableError(f"{self.name}: another run has published it with other settings meanwhile.")
        return self._mended(before)

    def _without_manifest(self) -> StagedEpisode:
        if self.is_ours or self._is_same(self.places.sizes[self.key]):
            return self.episode
        row = self._row()
        if row is None and self.places.contents[self.key] is None:
            self._check_unknown(self.places.sizes[self.key])
        is_same = row is not None and row.manifest_sha256 == self.episode.manifest.sha256
        if not is_same and not self.shard.replace:
            raise self._refusal("its manifest is lost, and what lies there differs from what was made now")
        return self.episode

    def _check_unknown(self, kinds: Collection[ArtifactKind]) -> None:
        if self._is_same(kinds):
            return
        paths = [artifact_path(kind, self.key) for kind in ArtifactKind if kind in kinds]
        raise DataNotUsableError(
            f"{', '.join(paths)}: lie where episode {self.name} goes, and are no run's that is known here. "
            f"`python flows/import_data.py --exp {quote(self.key.experiment)} --env …` takes such files in; or move "
            "them away."
        )

    def _is_same(self, kinds: Collection[ArtifactKind]) -> bool:
        """Whether the files there have the very bytes that were made."""
        made = self.episode.manifest
        return all(kind in made.artifacts and not self._is_broken(kind, made) for kind in kinds)

    def _row(self) -> EpisodeRecord | None:
        if self.registry is None:
            return None
        rows = self.registry.find_episodes(self.key.experiment, self.key.checkpoint, [self.key.episode])
        return next(iter(rows), None)

    def _mended(self, before: Manifest) -> StagedEpisode:
        broken = {kind for kind in before.artifacts if self._is_broken(kind, before)}
        now = self.episode.manifest.artifacts
        # A video isn't compared: it may have been encoded by another ffmpeg, and shows what the arrays say.
        compared = [kind for kind in before.artifacts if kind in _EPISODE_ITSELF]
        others = [kind for kind in compared if kind not in now or now[kind].sha256 != before.artifacts[kind].sha256]
        if not broken:
            return replace(self.episode, manifest=before, kinds=frozenset())
        if not others and broken <= now.keys():
            return self._with(before, {kind: now[kind] for kind in broken})
        records = {}
        if derivable_kinds(before, broken) == broken:
            records = derive_files(self.places.root, before, broken, self.episode.folder)
        if len(records) < len(broken):
            raise self._refusal(self._why(before, others))
        return self._with(before, records)

    def _with(self, before: Manifest, records: Mapping[ArtifactKind, ArtifactRecord]) -> StagedEpisode:
        return replace(self.episode, manifest=with_records(before, records), kinds=frozenset(records))

    def _is_broken(self, kind: ArtifactKind, manifest: Manifest) -> bool:
        if self.places.sizes[self.key].get(kind) != manifest.artifacts[kind].size:
            return True
        root = self.places.root
        try:
            with storage_errors(root):
                file = fetch_file(root, artifact_path(kind, self.key), self.episode.folder)
                try:
                    return find_fault(kind, file, manifest) is not None
                finally:
                    if not root.is_local:
                        file.unlink()
        except FileNotFoundError:
            return True
        except StorageNotUsableError:
            if not root.is_local:
                raise
            return True

    def _why(self, before: Manifest, others: Collection[ArtifactKind]) -> str:
        files = ", ".join(others) or "its files"
        now = self.episode.manifest.versions
        names = sorted(before.versions.keys() | now.keys())
        upgrades = [
            f"{name} {before.versions.get(name, 'none')} then, {now.get(name, 'none')} now"
            for name in names
            if before.versions.get(name) != now.get(name)
        ]
        if upgrades:
            return f"{files} came out otherwise ({'; '.join(upgrades)})"
        return f"{files} came out otherwise with the same versions: its seed doesn't determine what happens in it"

    def _refusal(self, why: str) -> DataNotUsableError:
        return DataNotUsableError(
            f"{self.name}: can't be made again as it was, and was left as it is: {why}. {anew_advice(self.key)}"
        )


def anew_advice(key: CheckpointKey | EpisodeKey) -> str:
    """How a checkpoint gets other episodes in place of those that can't be made again, as a sentence."""
    label = "0" if key.checkpoint == RANDOM else ":0" if key.checkpoint == "0" else key.checkpoint
    return (
        f"For new ones: `python flows/generate.py --exp {quote(key.experiment)} --checkpoints {quote(label)} "
        "--overwrite`."
    )


def _key(manifest: Manifest) -> EpisodeKey:
    return EpisodeKey(manifest.experiment, manifest.checkpoint, manifest.episode)
