"""Publishing: files of finished episodes go to their places, then their manifests, then the registry's index."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from rlhfblender_core.dataset.episode_writer import discard_staged
from rlhfblender_core.dataset.keep_intact import keep_intact
from rlhfblender_core.dataset.layout import (
    MANIFESTS,
    ArtifactKind,
    CheckpointKey,
    EpisodeKey,
    artifact_path,
    manifest_path,
)
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.staged import StagedEpisode, StagedShard
from rlhfblender_core.registry import EpisodeRecord, Registry
from rlhfblender_core.storage import DataRoot, publish_files, read_each, remove_files, storage_errors

_STAGED_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class PublishedShard:
    """What came of a shard, in numbers; small enough for Prefect to keep.

    Attributes:
        key: experiment and checkpoint.
        episodes: numbers of the episodes published.
        failures: message by number of those that the environment or policy broke off, or that may not be published.
        held: numbers of those that were left to other runs, which had claimed them.
        seconds: how long making them took.
    """

    key: CheckpointKey
    episodes: tuple[int, ...]
    failures: Mapping[int, str]
    held: tuple[int, ...] = ()
    seconds: float = 0.0


def publish_shard(root: DataRoot, staged: StagedShard) -> PublishedShard:
    """Publishes a shard's episodes, in the place of any that are there; doing it again after a failure is fine.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    # As in keep_intact: a look at a disk costs nothing, elsewhere it is a request.
    replacing = [each for each in staged.episodes if root.is_local or each.manifest.episode in staged.present]
    _withdraw(root, [episode.manifest for episode in replacing if episode.kinds is None])
    publish_files(root, {path: file for episode in staged.episodes for path, file in episode.files().items()})
    with storage_errors(root):
        # Written in the staging folder too: a run that dies here leaves nothing beside the published files.
        commits = {manifest_path(_key(episode.manifest)): _stage_manifest(episode) for episode in staged.episodes}
    publish_files(root, commits)
    for episode in staged.episodes:
        (episode.folder / _STAGED_MANIFEST).unlink(missing_ok=True)
        discard_staged(episode.folder)
    numbers = tuple(episode.manifest.episode for episode in staged.episodes)
    return PublishedShard(staged.key, numbers, staged.failures, seconds=staged.seconds)


def publish_and_index(root: DataRoot, registry: Registry, staged: StagedShard, run_id: str) -> PublishedShard:
    """Publishes what may be published of a shard (:func:`keep_intact`), and writes the index's rows of it.

    Args:
        root: the data root.
        registry: with the index.
        staged: what was made.
        run_id: of the run, whose claims on what was published are released.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    kept = keep_intact(root, registry, staged)
    published = publish_shard(root, kept)
    index_shard(registry, kept, run_id)
    return published


def _stage_manifest(episode: StagedEpisode) -> Path:
    file = episode.folder / _STAGED_MANIFEST
    episode.folder.mkdir(exist_ok=True)  # an earlier try may have removed it
    file.write_bytes(episode.manifest.content)
    return file


def _withdraw(root: DataRoot, manifests: Collection[Manifest]) -> None:
    """Takes back the commits of other episodes in these places, so that no manifest ever describes another's files.

    Asked now, not before they were rolled out: another run may have published since. A manifest that is the same
    describes the same bytes, and stays true while they are replaced by themselves.
    """
    paths = {manifest_path(_key(manifest)): manifest for manifest in manifests}
    there = read_each(root, list(paths))
    replaced = {path: paths[path] for path, content in there.items() if content != paths[path].content}
    remove_files(root, replaced)
    remove_files(
        root,
        [
            artifact_path(kind, _key(manifest))
            for manifest in replaced.values()
            for kind in ArtifactKind
            if kind not in manifest.artifacts
        ],
    )


def index_shard(registry: Registry, staged: StagedShard, run_id: str) -> None:
    """Writes the index's rows of a shard that was published, and releases the run's claims on it."""
    registry.record_episodes([episode_record(episode.manifest) for episode in staged.episodes], claimed_by=run_id)


def episode_record(manifest: Manifest) -> EpisodeRecord:
    """The registry's row for a published episode."""
    return EpisodeRecord(
        experiment=manifest.experiment,
        checkpoint=manifest.checkpoint,
        number=manifest.episode,
        seed=manifest.seed,
        episode_return=manifest.episode_return,
        episode_length=manifest.episode_length,
        terminated=manifest.terminated,
        truncated=manifest.truncated,
        request_digest=manifest.request_digest,
        manifest_sha256=manifest.sha256,
        sizes={kind.value: record.size for kind, record in manifest.artifacts.items()}
        | {MANIFESTS: len(manifest.content)},
        warnings=manifest.warnings,
    )


def _key(manifest: Manifest) -> EpisodeKey:
    return EpisodeKey(manifest.experiment, manifest.checkpoint, manifest.episode)
