"""Exporting one checkpoint's episodes to RLHF-Blender's layout, each file complete or not at all, the video last.

The server takes those episodes to exist whose videos do.
"""

import contextlib
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import RANDOM, ArtifactKind, CheckpointKey, EpisodeKey, artifact_path
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.npz import WholeArray, write_npy
from rlhfblender_core.dataset.selection import EVERYTHING, EpisodeSelection
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.export.exported import Exported, ExportedEpisodes, exported_episodes
from rlhfblender_core.export.index import staging_folder
from rlhfblender_core.export.pictures import thumbnail_of
from rlhfblender_core.export.request import CheckpointExport, RewardsKind
from rlhfblender_core.export.rlhfblender import names
from rlhfblender_core.export.rlhfblender.arrays import server_rewards, server_uncertainty, write_server_episode
from rlhfblender_core.export.rlhfblender.states import StatesPlan, StateWriter, open_state_writer
from rlhfblender_core.export.source import DAMAGED, CheckpointSource, SourceEpisode
from rlhfblender_core.rollout.replayed_states import ReplayedStates
from rlhfblender_core.storage import DataRoot, fetch_file, publish_files, remove_files, size_of
from rlhfblender_core.untrusted.npy import DamagedArrayError, parse_npy
from rlhfblender_core.untrusted.npz import open_arrays, reading_arrays

#: Part of what decides whether an episode is up to date; raised when the same episode would be other files.
_RECIPE = 2
#: The same for its states.
_STATES_RECIPE = "states 1"
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
        states: whether and how states of the environment are exported.
    """

    key: CheckpointKey
    env_id: str
    env_name: str
    experiment_id: int
    number: int
    rewards: RewardsKind
    states: StatesPlan | None = field(default=None, hash=False)  # holds dictionaries

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
        states = names.states_folder(self.env_id, self.experiment_id, self.number)
        paths["states"] = f"{names.DATA}/{names.ENV_STATES}/{states}/env_states_{episode}.npy"
        return paths | {
            "rewards": f"{names.DATA}/{names.REWARDS}/{self.folder}/rewards_{episode}.npy",
            "uncertainty": f"{names.DATA}/{names.UNCERTAINTY}/{self.folder}/uncertainty_{episode}.npy",
            "thumbnail": f"{names.DATA}/{names.THUMBNAILS}/{self.folder}/{episode}.jpg",
            "video": f"{names.DATA}/{names.RENDERS}/{self.folder}/{episode}.mp4",
        }


def export_server_checkpoint(
    root: DataRoot, target: DataRoot, checkpoint: ServerCheckpoint, selection: EpisodeSelection = EVERYTHING
) -> CheckpointExport:
    """Exports the episodes that aren't up to date, and removes those that are no more.

    Args:
        root: the data root.
        target: the export, locked by the caller.
        checkpoint: which one.
        selection: of its episodes; others that are exported already stay, as people may have judged them.
    """
    source = CheckpointSource(root, checkpoint.key, selection)
    with ExitStack() as stack:
        exported = stack.enter_context(exported_episodes(target, checkpoint.key))
        export = _Export(target, checkpoint, source, exported, _state_writer(source, checkpoint, stack))
        export.remove_gone()
        for block in source.blocks():
            export.update(block)
    return CheckpointExport(
        checkpoint.key,
        made=export.made,
        existing=export.existing,
        left_out=dict(export.left_out),
        place=f"{names.DATA}/{names.RENDERS}/{checkpoint.folder}",
        stateless=dict(export.stateless),
    )


def _state_writer(source: CheckpointSource, checkpoint: ServerCheckpoint, stack: ExitStack) -> StateWriter | None:
    """Who writes states; None where none are wanted."""
    plan = checkpoint.states
    first = next((episode for block in source.blocks(1) for episode in block), None) if plan else None
    with contextlib.suppress(DataNotUsableError):  # a damaged manifest is told when its episode is met
        if plan is not None and first is not None and plan.is_wanted(first.manifest):
            return stack.enter_context(open_state_writer(plan))
    return None


@dataclass
class _Export:
    """The export of one checkpoint, one block of its episodes after the other."""

    target: DataRoot
    checkpoint: ServerCheckpoint
    source: CheckpointSource
    exported: ExportedEpisodes
    states: StateWriter | None = None
    made: int = 0
    existing: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    stateless: Counter[str] = field(default_factory=Counter)

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
        identity: tuple[object, ...] = (_RECIPE, self.checkpoint.rewards, self.checkpoint.folder, episode.sha256)
        if self.states is not None:
            identity += (_STATES_RECIPE,)
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
        sizes, states = _export_episode(self.source.root, self.target, self.checkpoint, episode.manifest, self.states)
        if before is not None:
            remove_files(self.target, [path for path in before.sizes if path not in sizes])
        if states is not None and states.obstacle is not None:
            self.stateless[states.obstacle] += 1
        self.exported.add(episode.number, Exported(digest, sizes, None if states is None else states.proved))
        self.made += 1

    def _remove(self, number: int, doomed: Exported) -> None:
        # The video first: without it there is no episode.
        remove_files(self.target, sorted(doomed.sizes, key=lambda path: not path.endswith(".mp4")))
        self.exported.remove([number])


def _is_whole(target: DataRoot, exported: Exported) -> bool:
    return all(size_of(target.local_folder / path) == size for path, size in exported.sizes.items())


def _export_episode(
    root: DataRoot,
    target: DataRoot,
    checkpoint: ServerCheckpoint,
    manifest: Manifest,
    writer: StateWriter | None = None,
) -> tuple[dict[str, int], ReplayedStates | None]:
    with staging_folder(target) as folder:
        arrays = _stage(root, manifest, folder, checkpoint.rewards)
        paths = checkpoint.paths(manifest.episode)
        states = None if writer is None else writer.write(manifest, arrays, folder / "states")
        if states is None or not states.written:
            del paths["states"]
        elif manifest.episode == 0:
            # From this episode's folder: other checkpoints may publish the same file at the same moment.
            (folder / "initial").write_bytes(states.initial)
            initial = names.initial_state_file(checkpoint.env_id, checkpoint.experiment_id)
            publish_files(target, {initial: folder / "initial"})
        if "projection" in paths:
            link_or_copy(folder / "episode", folder / "projection")
        sizes = {path: (folder / name).stat().st_size for name, path in paths.items()}
        video = {paths.pop("video"): folder / "video"}
        publish_files(target, {path: folder / name for name, path in paths.items()})
        publish_files(target, video)
    return sizes, states


def _stage(root: DataRoot, manifest: Manifest, folder: Path, rewards: RewardsKind) -> Path:
    """Writes the server's files of an episode into a folder; returns our own arrays."""
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
    thumbnail_of(manifest, fetch(ArtifactKind.THUMBNAILS) if _has_thumbnail(manifest) else None, video).save(
        folder / "thumbnail", "JPEG", quality=_JPEG_QUALITY
    )
    link_or_copy(video, folder / "video")
    return arrays


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


def link_or_copy(source: Path, target: Path) -> None:
    """The file under another name: a hard link where the disk allows it. Neither is ever changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
