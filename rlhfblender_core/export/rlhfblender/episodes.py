"""Exporting one checkpoint's episodes to RLHF-Blender's layout, each file complete or not at all, the video last.

The server takes those episodes to exist whose videos do.
"""

import contextlib
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from rlhfblender_core.dataset.layout import RANDOM, ArtifactKind, CheckpointKey
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.npz import WholeArray, write_npy
from rlhfblender_core.dataset.published import Published, read_published
from rlhfblender_core.dataset.video import even, read_frames
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.export.index import Exported, read_exported, staging_folder, write_exported
from rlhfblender_core.export.request import CheckpointExport, RewardsKind
from rlhfblender_core.export.rlhfblender import names
from rlhfblender_core.export.rlhfblender.arrays import server_rewards, server_uncertainty, write_server_episode
from rlhfblender_core.storage import DataRoot, fetch_file, publish_files, remove_files
from rlhfblender_core.untrusted.pictures import PHOTOS, open_picture

#: Part of what decides whether an episode is up to date; raised when the same episode would be other files.
_RECIPE = 2
_JPEG_QUALITY = 90
#: Episodes that a killed export may have to write again.
_REMEMBER_EVERY = 50

NO_VIDEO = "has no video, and RLHF-Blender shows none without one; generate it without --no-render"
DAMAGED = "is damaged; run `python flows/verify.py --repair`"
UNEVEN = "has a video of another length than its steps"


@dataclass(frozen=True)
class ServerCheckpoint:
    """A checkpoint as the server knows it.

    Attributes:
        key: experiment and checkpoint, ours.
        env_id: the registration id.
        env_name: the server's name of the environment.
        experiment_id: the server's.
        number: the server's name of the checkpoint.
        rewards: what the file of rewards holds.
    """

    key: CheckpointKey
    env_id: str
    env_name: str
    experiment_id: int
    number: int
    rewards: RewardsKind

    @property
    def folder(self) -> str:
        """Below each kind's folder."""
        return names.episode_folder(self.env_name, self.experiment_id, self.number)

    def paths(self, episode: int) -> dict[str, str]:
        """Path below the export by the name of its staged file, the video last."""
        projections = names.projection_folder(self.env_id, self.experiment_id, self.number)
        array = f"benchmark_{episode}.npz"
        paths = {"episode": f"{names.DATA}/{names.EPISODES}/{self.folder}/{array}"}
        if projections != self.folder:
            paths["projection"] = f"{names.DATA}/{names.EPISODES}/{projections}/{array}"
        return paths | {
            "rewards": f"{names.DATA}/{names.REWARDS}/{self.folder}/rewards_{episode}.npy",
            "uncertainty": f"{names.DATA}/{names.UNCERTAINTY}/{self.folder}/uncertainty_{episode}.npy",
            "thumbnail": f"{names.DATA}/{names.THUMBNAILS}/{self.folder}/{episode}.jpg",
            "video": f"{names.DATA}/{names.RENDERS}/{self.folder}/{episode}.mp4",
        }


def export_server_checkpoint(root: DataRoot, target: DataRoot, checkpoint: ServerCheckpoint) -> CheckpointExport:
    """Exports the episodes that aren't up to date, and removes those that are no more.

    Args:
        root: the data root.
        target: the export, locked by the caller.
        checkpoint: which one.
    """
    published = read_published(root, checkpoint.key)
    before = read_exported(target, checkpoint.key)
    reasons = {number: _obstacle(published, number) for number in sorted(published.manifests)}
    wanted = {number: _source(published.manifests[number], checkpoint) for number, why in reasons.items() if not why}
    there = {number: before[number] for number, source in wanted.items() if _is_there(target, before, number, source)}
    _remove(target, (before[number] for number in before.keys() - wanted.keys()))
    _remove(target, (before[number] for number in (before.keys() & wanted.keys()) - there.keys()), only=".mp4")
    write_exported(target, checkpoint.key, there)
    exported = dict(there)
    try:
        for number in sorted(wanted.keys() - there.keys()):
            sizes = _export_episode(root, target, checkpoint, published.manifests[number])
            exported[number] = Exported(wanted[number], sizes)
            if len(exported) % _REMEMBER_EVERY == 0:
                write_exported(target, checkpoint.key, exported)
    finally:  # what is exported needn't be again, whatever stopped us
        write_exported(target, checkpoint.key, exported)
    return CheckpointExport(
        checkpoint.key,
        made=len(exported) - len(there),
        existing=len(there),
        left_out=dict(Counter(why for why in reasons.values() if why)),
        place=f"{names.DATA}/{names.RENDERS}/{checkpoint.folder}",
    )


def _obstacle(published: Published, number: int) -> str | None:
    """Why an episode can't be exported."""
    manifest = published.manifests[number]
    if not published.is_complete(number):
        return DAMAGED
    if ArtifactKind.RENDERS not in manifest.artifacts:
        return NO_VIDEO
    return UNEVEN if manifest.frames != manifest.episode_length else None


def _source(manifest: Manifest, checkpoint: ServerCheckpoint) -> str:
    """Digest of all that decides the exported files."""
    identity = (_RECIPE, checkpoint.rewards, checkpoint.folder, manifest.sha256)
    return hashlib.sha256(repr(identity).encode()).hexdigest()


def _is_there(target: DataRoot, before: Mapping[int, Exported], number: int, source: str) -> bool:
    exported = before.get(number)
    if exported is None or exported.source != source:
        return False
    files = {target.local_folder / path: size for path, size in exported.sizes.items()}
    return all(file.is_file() and file.stat().st_size == size for file, size in files.items())


def _remove(target: DataRoot, doomed: Iterable[Exported], only: str = "") -> None:
    for exported in doomed:
        # The video first: without it there is no episode.
        paths = sorted(exported.sizes, key=lambda path: not path.endswith(".mp4"))
        remove_files(target, [path for path in paths if path.endswith(only)])


def _export_episode(
    root: DataRoot, target: DataRoot, checkpoint: ServerCheckpoint, manifest: Manifest
) -> dict[str, int]:
    with staging_folder(target) as folder:
        _stage(root, manifest, folder, checkpoint.rewards)
        paths = checkpoint.paths(manifest.episode)
        if "projection" in paths:
            link_or_copy(folder / "episode", folder / "projection")
        sizes = {path: (folder / name).stat().st_size for name, path in paths.items()}
        video = {paths.pop("video"): folder / "video"}
        publish_files(target, {path: folder / name for name, path in paths.items()})
        publish_files(target, video)
    return sizes


def _stage(root: DataRoot, manifest: Manifest, folder: Path, rewards: RewardsKind) -> None:
    """Writes the server's files of an episode into a folder."""
    fetch = partial(_fetch, root, manifest, folder)
    arrays = fetch(ArtifactKind.EPISODES)
    write_server_episode(arrays, folder / "episode", is_random=manifest.policy.kind == RANDOM)
    with np.load(arrays, allow_pickle=False) as own:
        per_step = own["rewards"].astype(np.float64)
    write_npy(folder / "rewards", WholeArray(server_rewards(per_step, rewards)))
    uncertainty = np.full(len(per_step), np.nan)
    if ArtifactKind.UNCERTAINTY in manifest.artifacts:
        uncertainty = np.load(fetch(ArtifactKind.UNCERTAINTY), allow_pickle=False)
    write_npy(folder / "uncertainty", WholeArray(server_uncertainty(uncertainty)))
    video = fetch(ArtifactKind.RENDERS)
    _thumbnail(manifest, fetch(ArtifactKind.THUMBNAILS) if _has_thumbnail(manifest) else None, video).save(
        folder / "thumbnail", "JPEG", quality=_JPEG_QUALITY
    )
    link_or_copy(video, folder / "video")


def _fetch(root: DataRoot, manifest: Manifest, folder: Path, kind: ArtifactKind) -> Path:
    path = manifest.artifacts[kind].path
    try:
        return fetch_file(root, path, folder)
    except FileNotFoundError as error:
        raise DataNotUsableError(f"{root.display_url(path)} is gone. Run `python flows/verify.py --repair`.") from error


def _has_thumbnail(manifest: Manifest) -> bool:
    return ArtifactKind.THUMBNAILS in manifest.artifacts


def _thumbnail(manifest: Manifest, file: Path | None, video: Path) -> Image.Image:
    """The thumbnail as RGB; the video's first frame where an imported episode has none."""
    if file is not None:
        with open_picture(file, file.name, PHOTOS) as picture:
            return picture.convert("RGB")
    height, width = even(manifest.frame_height or 0), even(manifest.frame_width or 0)
    frames = read_frames(video, height, width) if height and width else iter(())
    frame = next(frames, None)
    with contextlib.suppress(AttributeError):
        frames.close()  # type: ignore[attr-defined]  # ends the decoder
    return Image.new("RGB", (64, 64), "#808080") if frame is None else Image.fromarray(frame)


def link_or_copy(source: Path, target: Path) -> None:
    """The file under another name: a hard link where the disk allows it. Neither is ever changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
