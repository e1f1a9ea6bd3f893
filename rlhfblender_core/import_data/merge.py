"""Merging: episodes of another data set of this layout, by manifest. Files are copied as they are, and checked."""

import hashlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from rlhfblender_core.dataset.action_labels import load_pictures, store_pictures
from rlhfblender_core.dataset.episode_writer import discard_staged, staged_path
from rlhfblender_core.dataset.keep_intact import keep_intact
from rlhfblender_core.dataset.layout import (
    ArtifactKind,
    CheckpointKey,
    EpisodeKey,
    artifact_path,
    manifest_path,
)
from rlhfblender_core.dataset.manifests import Manifest, file_digest, parse_manifest
from rlhfblender_core.dataset.publish import publish_shard
from rlhfblender_core.dataset.published import Published, read_some
from rlhfblender_core.dataset.staged import StagedEpisode, StagedShard
from rlhfblender_core.errors import (
    DataNotUsableError,
    one_line,
)
from rlhfblender_core.import_data.episodes import ImportedBatch, lying_there
from rlhfblender_core.import_data.merge_plan import Merge, MergePlan
from rlhfblender_core.registry import (
    Registry,
)
from rlhfblender_core.storage import (
    DataRoot,
    fetch_file,
    full_disk_errors,
    read_many,
    sizes_of,
)


def merge_episodes(
    root: DataRoot,
    source: DataRoot,
    numbers: Sequence[int],
    merge: Merge,
    staging: Path,
    registry: Registry | None = None,
) -> ImportedBatch:
    """Copies these episodes of a checkpoint; what is wrong with one doesn't concern the others.

    Args:
        root: where they go.
        source: where they come from; only read.
        numbers: which.
        merge: from which checkpoint to which.
        staging: folder for unfinished files, on the data root's disk where that is local.
        registry: knows of episodes whose manifests were lost; None where there is none.
    """
    published = read_some(root, merge.key, numbers)
    present = published.manifests.keys() | lying_there(root, merge.key, numbers)
    origins = {number: EpisodeKey(merge.origin.experiment, merge.origin.checkpoint, number) for number in numbers}
    contents = read_many(source, [manifest_path(origin) for origin in origins.values()])
    sizes = sizes_of(source, [artifact_path(kind, origin) for origin in origins.values() for kind in ArtifactKind])
    made, existing, faults = [], [], []
    for number, origin in origins.items():
        path = manifest_path(origin)
        try:
            if path not in contents:
                raise DataNotUsableError("is gone")
            manifest = _own_manifest(_source_manifest(contents[path], path), origin)
            coming = _renamed(manifest, merge.key)
            if _is_there(published, coming, merge):
                existing.append(number)
                continue
            _check_sizes(manifest, sizes)
            with full_disk_errors(staging):
                _publish(root, source, (manifest, coming), merge, staging, registry, present)
        except DataNotUsableError as error:
            faults.append(f"{path}: {one_line(error)}")
            continue
        made.append(number)
    return ImportedBatch(merge.key, tuple(made), tuple(existing), tuple(faults))


def _source_manifest(content: bytes, path: str) -> Manifest:
    """The manifest, where it is good; what mends another is done in the source, not where the episodes go.

    Raises:
        DataNotUsableError: it isn't.
    """
    try:
        return parse_manifest(content, path)
    except DataNotUsableError as error:
        found, advice, _ = str(error).partition(" Run `")
        raise DataNotUsableError(f"{found} Mend it where it comes from." if advice else found) from error


def _own_manifest(manifest: Manifest, key: EpisodeKey) -> Manifest:
    if EpisodeKey(manifest.experiment, manifest.checkpoint, manifest.episode) != key:
        raise DataNotUsableError("is another episode's manifest")
    return manifest


def _renamed(manifest: Manifest, key: CheckpointKey) -> Manifest:
    """The manifest of the same files in another experiment."""
    own = EpisodeKey(key.experiment, key.checkpoint, manifest.episode)
    artifacts = {
        kind: {**record.model_dump(), "path": artifact_path(kind, own)} for kind, record in manifest.artifacts.items()
    }
    return Manifest.model_validate({**manifest.model_dump(), "experiment": key.experiment, "artifacts": artifacts})


def _is_there(published: Published, coming: Manifest, merge: Merge) -> bool:
    before = published.manifests.get(coming.episode)
    if before is None:
        return False
    if before.content == coming.content or (before.request_digest == coming.request_digest and not merge.replace):
        return published.is_complete(coming.episode)
    if merge.replace:
        return False
    raise DataNotUsableError(
        f"episode {coming.episode} of {merge.key.experiment!r} at {merge.key.checkpoint} is there already, made "
        "otherwise. Use another --exp, or --overwrite."
    )


def _check_sizes(manifest: Manifest, sizes: Mapping[str, int]) -> None:
    for record in manifest.artifacts.values():
        if sizes.get(record.path) != record.size:
            what = "is missing" if record.path not in sizes else "has another size than its manifest says"
            raise DataNotUsableError(f"{record.path} {what}")


def _publish(  # noqa: PLR0913, PLR0917 (both data sets, and what they know)
    root: DataRoot,
    source: DataRoot,
    manifests: tuple[Manifest, Manifest],
    merge: Merge,
    staging: Path,
    registry: Registry | None,
    present: Collection[int],
) -> None:
    manifest, coming = manifests
    folder = staging / hashlib.sha256(repr((merge.key, manifest.episode)).encode()).hexdigest()[:16]
    folder.mkdir(exist_ok=True)
    number = frozenset({manifest.episode})
    try:
        for kind, record in manifest.artifacts.items():
            _fetch(source, record.path, record.sha256, staged_path(folder, kind))
        staged = StagedShard(
            str(merge.key),
            merge.key,
            (StagedEpisode(coming, folder),),
            {},
            replace=True,  # what is there was asked for before
            ours=number & merge.left_over,
            present=number & frozenset(present),
        )
        kept = keep_intact(root, registry, staged)
        for line in kept.failures.values():
            raise DataNotUsableError(line)
        publish_shard(root, kept)
    finally:
        discard_staged(folder)


def _fetch(source: DataRoot, path: str, sha256: str, target: Path) -> None:
    """A copy of the file, which is what its manifest says."""
    try:
        file = fetch_file(source, path, target.parent)
        if source.is_local:
            shutil.copyfile(file, target)  # no link: whoever changes the one mustn't change the other
        else:
            file.replace(target)
    except FileNotFoundError as error:
        raise DataNotUsableError(f"{path} is gone") from error
    if file_digest(target) != sha256:
        raise DataNotUsableError(f"{path} is damaged: it isn't what its manifest says")


def store_labels(root: DataRoot, source: DataRoot, plan: MergePlan) -> int:
    """Stores the other data set's pictures of actions that aren't there yet; returns how many."""
    names, env_id = plan.environment.action_names or (), plan.environment.env_id
    there = load_pictures(root, env_id, names)
    coming = {label: picture for label, picture in load_pictures(source, env_id, names).items() if label not in there}
    if coming:
        store_pictures(root, env_id, coming)
    return len(coming)
