"""Files of an episode that its other files determine: made from those, without the environment."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.episode_writer import staged_path
from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.dataset.manifests import ArtifactRecord, Manifest, file_digest
from rlhfblender_core.dataset.npz import WholeArray, write_npy
from rlhfblender_core.dataset.thumbnails import thumbnail_from_video
from rlhfblender_core.storage import DataRoot, fetch_file
from rlhfblender_core.untrusted.npz import open_arrays

#: Which file of the episode each of these is made from.
SOURCES = {
    ArtifactKind.REWARDS: ArtifactKind.EPISODES,
    ArtifactKind.UNCERTAINTY: ArtifactKind.EPISODES,
    ArtifactKind.THUMBNAILS: ArtifactKind.RENDERS,
}


def derivable_kinds(manifest: Manifest, broken: Collection[ArtifactKind]) -> frozenset[ArtifactKind]:
    """Which of an episode's broken files have an intact one to be made from."""
    intact = manifest.artifacts.keys() - set(broken)
    return frozenset(kind for kind in broken if SOURCES.get(kind) in intact)


def derive_files(
    root: DataRoot, manifest: Manifest, kinds: Collection[ArtifactKind], folder: Path
) -> dict[ArtifactKind, ArtifactRecord]:
    """Writes files of a published episode from others of its own; the records of those that these determine.

    Args:
        root: where the others are.
        manifest: the episode's.
        kinds: which files; one whose source (:data:`SOURCES`) isn't intact any more is left out.
        folder: where they go, under the names of staged files.

    Raises:
        FileNotFoundError: a source is gone.
        DataNotUsableError: it is no such file.
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    key = EpisodeKey(manifest.experiment, manifest.checkpoint, manifest.episode)
    records = {}
    for kind in kinds:
        source = fetch_file(root, artifact_path(SOURCES[kind], key), folder)
        try:
            is_intact = file_digest(source) == manifest.artifacts[SOURCES[kind]].sha256
            record = derive_file(kind, source, staged_path(folder, kind), manifest) if is_intact else None
        finally:
            if not root.is_local:
                source.unlink()
        if record is not None:
            records[kind] = record
    return records


def with_records(manifest: Manifest, records: Mapping[ArtifactKind, ArtifactRecord]) -> Manifest:
    """The manifest with other records of these files."""
    artifacts = {**manifest.artifacts, **records}
    # Validated anew: a copy would keep the text and the digest of before.
    return Manifest.model_validate({**manifest.model_dump(), "artifacts": artifacts})


def derive_file(kind: ArtifactKind, source: Path, target: Path, manifest: Manifest) -> ArtifactRecord | None:
    """Writes a file of an episode from another one; its record, or None where that doesn't determine it.

    Numbers count only with the very bytes that were published. A thumbnail differs a little from the first one, which
    was made before the video lost details.

    Args:
        kind: of the file that is made.
        source: the intact file that it is made from (:data:`SOURCES`).
        target: where it goes.
        manifest: the episode's.
    """
    record = manifest.artifacts[kind]
    if kind is ArtifactKind.THUMBNAILS:
        if not manifest.frame_height or not manifest.frame_width:
            return None
        if not thumbnail_from_video(source, target, manifest.frame_height, manifest.frame_width):
            return None
        return ArtifactRecord(path=record.path, size=target.stat().st_size, sha256=file_digest(target))
    for values in _candidates(kind, source, manifest):
        write_npy(target, WholeArray(values))
        if file_digest(target) == record.sha256:
            return record
    target.unlink(missing_ok=True)
    return None


def _candidates(kind: ArtifactKind, source: Path, manifest: Manifest) -> Iterator[NDArray[np.floating]]:
    with open_arrays(source, str(source)) as arrays:
        if kind is ArtifactKind.REWARDS:
            yield np.cumsum(arrays["rewards"], dtype=np.float64)
        elif manifest.uncertainty_kind == "none":
            yield np.full(len(arrays["rewards"]), np.nan, np.float32)
        elif "entropy" in arrays:
            yield arrays["entropy"].astype(np.float32)
