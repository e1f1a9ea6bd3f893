"""Files of an episode that its other files determine: made from those, without the environment."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.dataset.manifests import ArtifactRecord, Manifest, file_digest
from rlhfblender_core.dataset.npz import WholeArray, write_npy
from rlhfblender_core.dataset.thumbnails import thumbnail_from_video

#: Which file of the episode each of these is made from.
SOURCES = {
    ArtifactKind.REWARDS: ArtifactKind.EPISODES,
    ArtifactKind.UNCERTAINTY: ArtifactKind.EPISODES,
    ArtifactKind.THUMBNAILS: ArtifactKind.RENDERS,
}


def are_derivable(manifest: Manifest, broken: Collection[ArtifactKind]) -> bool:
    """Whether there are broken files, and an intact one to make each of them from."""
    sources = {SOURCES.get(kind) for kind in broken}
    return bool(sources) and sources <= set(manifest.artifacts) - set(broken)


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
    with np.load(source, allow_pickle=False) as arrays:
        if kind is ArtifactKind.REWARDS:
            yield np.cumsum(arrays["rewards"], dtype=np.float64)
        elif manifest.uncertainty_kind == "none":
            yield np.full(manifest.episode_length, np.nan, np.float32)
        elif "entropy" in arrays:
            yield arrays["entropy"].astype(np.float32)
