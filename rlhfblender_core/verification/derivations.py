"""Broken files that intact ones of the same episode determine: made from those, without the environment."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from rlhfblender_core.dataset.derive import derivable_kinds, derive_files, with_records
from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey, EpisodeKey, artifact_path
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.publish import publish_shard
from rlhfblender_core.dataset.staged import StagedEpisode, StagedShard
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.locations import Locations
from rlhfblender_core.registry import open_registry
from rlhfblender_core.runs.claims import open_claims
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.verification.checks import Problem, Remedy, read_manifests

#: Episodes whose derived files wait to be published at a time.
_AT_ONCE = 25


def derive_broken_files(
    problems: Sequence[Problem], locations: Locations, *, replace_thumbnails: bool
) -> frozenset[Problem]:
    """Makes what is broken from intact files of the same episodes; returns the problems that are mended.

    Numbers come back with the bytes that were published. A thumbnail differs a little from the one that was made before
    the video lost details, so an episode that can be made again as it was gets the better one that way.

    Args:
        problems: all that survey found of these episodes.
        locations: data root and registry.
        replace_thumbnails: whether thumbnails are made of episodes that may come out the same when made again, too.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    root = locations.open_root()
    broken: dict[EpisodeKey, dict[ArtifactKind, Problem]] = {}
    for problem in problems:
        for kind in ArtifactKind:
            if problem.remedy is Remedy.REMAKE and problem.key and problem.path == artifact_path(kind, problem.key):
                broken.setdefault(problem.key, {})[kind] = problem
    wanted: dict[CheckpointKey, dict[int, frozenset[ArtifactKind]]] = {}
    for key, manifest in read_manifests(root, broken).items():
        kinds = derivable_kinds(manifest, broken[key])
        if manifest.reproducible is not False and not replace_thumbnails:
            kinds = kinds - {ArtifactKind.THUMBNAILS}
        if kinds:
            wanted.setdefault(CheckpointKey(key.experiment, key.checkpoint), {})[key.episode] = kinds
    mended: set[Problem] = set()
    for checkpoint, episodes in sorted(wanted.items()):
        for number, derived in _derived(checkpoint, episodes, locations):
            key = EpisodeKey(checkpoint.experiment, checkpoint.checkpoint, number)
            mended.update(broken[key][kind] for kind in derived)
    return frozenset(mended)


def _derived(
    key: CheckpointKey, wanted: Mapping[int, frozenset[ArtifactKind]], locations: Locations
) -> Iterator[tuple[int, Collection[ArtifactKind]]]:
    """Derives and publishes these files, and names what came of it by episode."""
    root, url = locations.open_root(), locations.database_url
    open_registry(url).close()  # made on first use: claims come before files
    # Claimed meanwhile: a run that replaces the episode must not find its files mixed with these.
    with open_run(root) as run, open_claims(url, run.folder, key.experiment, {}) as claims:
        free = claims.claim(key, wanted).free
        for start in range(0, len(free), _AT_ONCE):
            part = [EpisodeKey(key.experiment, key.checkpoint, number) for number in free[start : start + _AT_ONCE]]
            manifests = read_manifests(root, part)  # again: nobody replaces them from now on
            staged = [_staged(root, manifest, wanted[one.episode], run.folder) for one, manifest in manifests.items()]
            publish_shard(root, StagedShard(str(part[0]), key, tuple(staged), {}))
            yield from ((one.manifest.episode, one.kinds or ()) for one in staged)
        claims.release(key, free)


def _staged(root: DataRoot, manifest: Manifest, kinds: Collection[ArtifactKind], staging: Path) -> StagedEpisode:
    folder = staging / str(manifest.episode)
    folder.mkdir()
    try:
        records = derive_files(root, manifest, kinds, folder)
    except (DataNotUsableError, FileNotFoundError):  # its source was lost since it was checked
        records = {}
    return StagedEpisode(with_records(manifest, records), folder, frozenset(records))
