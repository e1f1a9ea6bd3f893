"""Exporting one checkpoint's episodes to RLHF-Blender's layout, each file complete or not at all, the video last.

The server takes those episodes to exist whose videos do.
"""

import contextlib
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlhfblender_core.dataset.layout import RANDOM, ArtifactKind, CheckpointKey, EpisodeKey, artifact_path
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.npz import WholeArray, write_npy
from rlhfblender_core.dataset.video import even, read_frames
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.export.exported import Exported, ExportedEpisodes, exported_episodes
from rlhfblender_core.export.index import staging_folder
from rlhfblender_core.export.request import CheckpointExport, RewardsKind
from rlhfblender_core.export.rlhfblender import names
from rlhfblender_core.export.rlhfblender.arrays import server_rewards, server_uncertainty, write_server_episode
from rlhfblender_core.export.source import DAMAGED, CheckpointSource, SourceEpisode, size_of
from rlhfblender_core.storage import DataRoot, fetch_file, publish_files, remove_files
from rlhfblender_core.untrusted.npy import DamagedArrayError, parse_npy
from rlhfblender_core.untrusted.npz import open_arrays, reading_arrays
from rlhfblender_core.untrusted.pictures import PHOTOS, open_picture

#: Part of what decides whether an episode is up to date; raised when the same episode would be other files.
_RECIPE = 2
_JPEG_QUALITY = 90

NO_VIDEO = "has no video, and RLHF-Blender shows none without one; generate it without --no-render"
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
    source = CheckpointSource(root, checkpoint.key)
    with exported_episodes(target, checkpoint.key) as exported:
        export = _Export(target, checkpoint, source, exported)
        export.remove_gone()
        for block in source.blocks():
            export.update(block)
    return CheckpointExport(
        checkpoint.key,
        made=export.made,
        existing=export.existing,
        left_out=dict(export.left_out),
        place=f"{names.DATA}/{names.RENDERS}/{checkpoint.folder}",
    )


@dataclass
class _Export:
    """The export of one checkpoint, one block of its episodes after the other."""

    target: DataRoot
    checkpoint: ServerCheckpoint
    source: CheckpointSource
    exported: ExportedEpisodes
    made: int = 0
    existing: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def remove_gone(self) -> None:
        """Removes what was exported of episodes that are no more."""
        for number in [number for number in self.exported.numbers() if not self.source.has(number)]:
            self._remove(number, self.exported.between(number, number)[number])

    def update(self, block: Sequence[SourceEpisode]) -> None:
        """Brings some episodes up to date."""
        before = self.exported.between(block[0].number, block[-1].number) if block else {}
        for episode in block:
            there = before.get(episode.number)
            digest = self._digest(episode)
            is_known = there is not None and there.source == digest
            obstacle = self._obstacle(episode.number, episode.facts if is_known else episode.manifest.model_dump())
            if obstacle is not None:
                self.left_out[obstacle] += 1
            if obstacle is not None and there is not None:
                self._remove(episode.number, there)
            elif obstacle is None and there is not None and is_known and _is_whole(self.target, there):
                self.existing += 1
            elif obstacle is None:
                self._export(episode, there, digest)

    def _digest(self, episode: SourceEpisode) -> str:
        """Of all that decides the exported files."""
        identity = (_RECIPE, self.checkpoint.rewards, self.checkpoint.folder, episode.sha256)
        return hashlib.sha256(repr(identity).encode()).hexdigest()

    def _obstacle(self, number: int, facts: Mapping[str, Any]) -> str | None:
        """Why an episode can't be exported."""
        if not self.source.is_complete(facts, number):
            return DAMAGED
        if ArtifactKind.RENDERS not in facts["artifacts"]:
            return NO_VIDEO
        return UNEVEN if facts["frames"] != facts["episode_length"] else None

    def _export(self, episode: SourceEpisode, before: Exported | None, digest: str) -> None:
        if before is not None:  # without its video there is no episode while its files change
            remove_files(self.target, [path for path in before.sizes if path.endswith(".mp4")])
            self.exported.remove([episode.number])
        sizes = _export_episode(self.source.root, self.target, self.checkpoint, episode.manifest)
        self.exported.add(episode.number, Exported(digest, sizes))
        self.made += 1

    def _remove(self, number: int, doomed: Exported) -> None:
        # The video first: without it there is no episode.
        remove_files(self.target, sorted(doomed.sizes, key=lambda path: not path.endswith(".mp4")))
        self.exported.remove([number])


def _is_whole(target: DataRoot, exported: Exported) -> bool:
    return all(size_of(target.local_folder / path) == size for path, size in exported.sizes.items())


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
    with reading_arrays(str(arrays)), open_arrays(arrays, str(arrays)) as own:
        per_step = own["rewards"].astype(np.float64)
    write_npy(folder / "rewards", WholeArray(server_rewards(per_step, rewards)))
    uncertainty = np.full(len(per_step), np.nan)
    if ArtifactKind.UNCERTAINTY in manifest.artifacts:
        uncertainty = _numbers(fetch(ArtifactKind.UNCERTAINTY), len(per_step))
    write_npy(folder / "uncertainty", WholeArray(server_uncertainty(uncertainty)))
    video = fetch(ArtifactKind.RENDERS)
    _thumbnail(manifest, fetch(ArtifactKind.THUMBNAILS) if _has_thumbnail(manifest) else None, video).save(
        folder / "thumbnail", "JPEG", quality=_JPEG_QUALITY
    )
    link_or_copy(video, folder / "video")


def _numbers(file: Path, length: int) -> NDArray[Any]:
    with reading_arrays(str(file)):
        found = parse_npy(file.read_bytes())
        if found.shape != (length,):
            raise DamagedArrayError(f"has the shape {found.shape}, the episode has {length} steps")
    return found


def _fetch(root: DataRoot, manifest: Manifest, folder: Path, kind: ArtifactKind) -> Path:
    # Where the layout has it, whatever path a manifest of somebody's names.
    path = artifact_path(kind, EpisodeKey(manifest.experiment, manifest.checkpoint, manifest.episode))
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
