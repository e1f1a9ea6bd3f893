"""One source episode after the other: checked, converted, published with its manifest, or named with what is wrong."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.episode_writer import discard_staged, staged_path
from rlhfblender_core.dataset.keep_intact import keep_intact
from rlhfblender_core.dataset.layout import IMPORTED, ArtifactKind, CheckpointKey, EpisodeKey, artifact_path
from rlhfblender_core.dataset.manifests import (
    ArtifactRecord,
    EnvironmentRecordInManifest,
    Manifest,
    PolicyRecord,
    canonical_digest,
    file_digest,
)
from rlhfblender_core.dataset.npz import WholeArray, write_npy, write_npz
from rlhfblender_core.dataset.publish import publish_shard
from rlhfblender_core.dataset.published import Published, read_some
from rlhfblender_core.dataset.staged import StagedEpisode, StagedShard
from rlhfblender_core.dataset.thumbnails import thumbnail_from_video
from rlhfblender_core.errors import DataNotUsableError, one_line
from rlhfblender_core.import_data.arrays import FaultError, open_members, read_numbers, read_states
from rlhfblender_core.import_data.columns import EpisodeColumns, convert_columns
from rlhfblender_core.import_data.pictures import (
    VideoFacts,
    convert_thumbnail,
    convert_video,
    video_of_frames,
)
from rlhfblender_core.import_data.sources import SourceCheckpoint, SourceEpisode
from rlhfblender_core.registry import Registry
from rlhfblender_core.storage import DataRoot, full_disk_errors, sizes_of
from rlhfblender_core.untrusted import limits
from rlhfblender_core.untrusted.pickles import DamagedPickleError, RefusedPickleError

#: Raised whenever a conversion gives other bytes than before.
_CONVERSION = 1


@dataclass(frozen=True)
class ImportTarget:
    """What a checkpoint's episodes become.

    Attributes:
        key: experiment and checkpoint.
        step: environment steps that the policy was trained for; None where unknown.
        environment: as the manifests name it.
        algorithm: of the policy; None where unknown.
        action_names: labels of the actions, where known.
        replace: whether episodes that are there, made otherwise, are replaced.
        left_over: numbers of the episodes that a dead run had claimed: files of theirs without a manifest are ours.
    """

    key: CheckpointKey
    step: int | None
    environment: EnvironmentRecordInManifest
    algorithm: str | None
    action_names: tuple[str, ...] | None
    replace: bool = False
    left_over: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ImportedBatch:
    """What became of some episodes of a checkpoint.

    Attributes:
        key: experiment and checkpoint.
        made: numbers of those imported now.
        existing: numbers of those that were there already.
        faults: one line per episode that was not imported, naming the file.
        notes: one line per thing that was missing or left out of those that were.
    """

    key: CheckpointKey
    made: tuple[int, ...] = ()
    existing: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def import_episodes(
    root: DataRoot,
    source: SourceCheckpoint,
    numbers: Sequence[int],
    target: ImportTarget,
    staging: Path,
    registry: Registry | None = None,
) -> ImportedBatch:
    """Imports these episodes of a checkpoint; what is wrong with one doesn't concern the others.

    Args:
        root: where they go.
        source: where they come from; only read.
        numbers: which of its episodes.
        target: what they become.
        staging: folder for unfinished files, on the data root's disk where that is local.
        registry: knows of episodes whose manifests were lost; None where there is none.
    """
    published = read_some(root, target.key, numbers)
    present = published.manifests.keys() | lying_there(root, target.key, numbers)
    made, existing, faults, notes = [], [], [], []
    for number in numbers:
        importing = _Importing(root, source, source.episode(number), target, staging)
        try:
            if importing.is_there(published):
                existing.append(number)
                continue
            with full_disk_errors(staging):
                importing.publish(registry, is_present=number in present)
        except DataNotUsableError as error:
            faults.append(one_line(error))
            continue
        made.append(number)
        notes += importing.notes
    return ImportedBatch(target.key, tuple(made), tuple(existing), tuple(faults), tuple(notes))


def lying_there(root: DataRoot, key: CheckpointKey, numbers: Sequence[int]) -> set[int]:
    """Those among the episodes in whose places some file lies, whosever it is."""
    keys = {number: EpisodeKey(key.experiment, key.checkpoint, number) for number in numbers}
    paths = {artifact_path(kind, own): number for number, own in keys.items() for kind in ArtifactKind}
    return {paths[path] for path in sizes_of(root, paths)}


@dataclass
class _Importing:
    """The import of one episode."""

    root: DataRoot
    source: SourceCheckpoint
    episode: SourceEpisode
    target: ImportTarget
    staging: Path
    notes: list[str] = field(default_factory=list)

    @property
    def key(self) -> EpisodeKey:
        return EpisodeKey(self.target.key.experiment, self.target.key.checkpoint, self.episode.number)

    def shown(self, kind: ArtifactKind) -> str:
        """How messages name the episode's file."""
        file = self.episode.files.get(kind) or self.episode.usual[kind]
        return file.relative_to(self.source.folder).as_posix()

    def is_there(self, published: Published) -> bool:
        """Whether it was imported before from the same files.

        Raises:
            DataNotUsableError: another episode of that number is there.
        """
        manifest = published.manifests.get(self.episode.number)
        if manifest is None or self.target.replace:
            return False
        is_complete = published.is_complete(self.episode.number)
        if self._is_in_place() or manifest.request_digest == self._digest():
            return is_complete
        raise DataNotUsableError(
            f"{self.shown(ArtifactKind.EPISODES)}: episode {self.episode.number} of {self.key.experiment!r} at "
            f"{self.key.checkpoint} is there already, made otherwise. Use another --exp, or --overwrite."
        )

    def _is_in_place(self) -> bool:
        """Whether the source's files are the very ones that the episode has in the data root."""
        if not self.root.is_local or ArtifactKind.EPISODES not in self.episode.files:
            return False
        path = self.root.local_folder / artifact_path(ArtifactKind.EPISODES, self.key)
        return path.exists() and path.samefile(self.episode.files[ArtifactKind.EPISODES])

    def _digest(self) -> str:
        files = {kind.value: self._digest_of(kind, file) for kind, file in self.episode.files.items()}
        return canonical_digest({"conversion": _CONVERSION, "files": files, "environment": self.target.environment.id})

    def _digest_of(self, kind: ArtifactKind, file: Path) -> str:
        try:
            size, most = file.stat().st_size, limits.MAX_FILE_BYTES[kind.value]
            if size > most:
                raise DataNotUsableError(f"{self.shown(kind)}: has {size:,} bytes, at most {most:,} are read")
            return file_digest(file)
        except OSError as error:
            raise DataNotUsableError(f"{self.shown(kind)}: can't be read: {error.strerror or error}") from error

    def publish(self, registry: Registry | None, *, is_present: bool) -> None:
        """Converts and publishes it.

        Args:
            registry: knows of episodes whose manifests were lost; None where there is none.
            is_present: whether anything lies in its place.

        Raises:
            DataNotUsableError: it can't be converted, or an unknown file lies in its place.
        """
        folder = self.staging / hashlib.sha256(repr(self.key).encode()).hexdigest()[:16]
        folder.mkdir(exist_ok=True)
        number = frozenset({self.episode.number})
        is_ours = self._is_in_place() or number <= self.target.left_over
        try:
            staged = StagedShard(
                str(self.key),
                self.target.key,
                (StagedEpisode(self._converted(folder), folder),),
                {},
                replace=True,  # what is there was asked for in is_there
                ours=number if is_ours else frozenset(),
                present=number if is_present else frozenset(),
            )
            kept = keep_intact(self.root, registry, staged)
            for line in kept.failures.values():
                raise DataNotUsableError(line)
            publish_shard(self.root, kept)
        finally:
            discard_staged(folder)

    def _converted(self, folder: Path) -> Manifest:
        digest = self._digest()
        kind = ArtifactKind.EPISODES
        if kind not in self.episode.files:
            raise DataNotUsableError(f"{self.shown(kind)}: {self._absence(kind)}")
        with open_members(self.episode.files[kind], self.shown(kind)) as members:
            columns = convert_columns(members, folder, self._states())
            try:
                write_npz(staged_path(folder, kind), columns.columns)
            finally:
                columns.close()
            seen = video_of_frames(members, len(columns.rewards), staged_path(folder, ArtifactKind.RENDERS))
        self.notes += [f"{self.shown(kind)}: {note}" for note in columns.notes]
        self._check_rewards(columns.rewards, columns.cumulative)
        write_npy(staged_path(folder, ArtifactKind.REWARDS), WholeArray(columns.cumulative))
        uncertainty_kind = self._convert_uncertainty(len(columns.rewards), folder)
        video = self._convert_pictures(len(columns.rewards), folder, seen)
        return self._manifest(columns, uncertainty_kind, video, digest, self._artifacts(folder))

    def _states(self) -> list[Any] | None:
        file = self.source.states_of(self.episode.number)
        if file is None:
            return None
        try:
            return read_states(file)
        except FileNotFoundError:
            reason = "isn't there, and the episode has no states of the environment"
        except (FaultError, RefusedPickleError, DamagedPickleError, OSError) as error:
            reason = f"left out: {str(error)[:200]}"
        self.notes.append(f"{file.relative_to(self.source.folder).as_posix()}: {reason}")
        return None

    def _check_rewards(self, rewards: NDArray[np.float64], cumulative: NDArray[np.float64]) -> None:
        kind = ArtifactKind.REWARDS
        if kind not in self.episode.files:
            self._note_missing(kind, "made from the episode's rewards")
            return
        found = read_numbers(self.episode.files[kind], self.shown(kind))
        self._check_length(kind, len(found), len(rewards))
        if not any(np.allclose(found, known, rtol=1e-4, atol=1e-6, equal_nan=True) for known in (rewards, cumulative)):
            self.notes.append(f"{self.shown(kind)}: differs from the episode's rewards, which are taken")

    def _convert_uncertainty(self, length: int, folder: Path) -> str:
        kind = ArtifactKind.UNCERTAINTY
        if kind in self.episode.files:
            values = read_numbers(self.episode.files[kind], self.shown(kind))
            self._check_length(kind, len(values), length)
        else:
            self._note_missing(kind, "uncertainty is NaN")
            values = np.full(length, np.nan)
        write_npy(staged_path(folder, kind), WholeArray(values.astype(np.float32)))
        return IMPORTED if kind in self.episode.files else "none"

    def _note_missing(self, kind: ArtifactKind, instead: str) -> None:
        if self.episode.usual[kind] != self.episode.files[ArtifactKind.EPISODES]:  # a demonstration is one file
            self.notes.append(f"{self.shown(kind)}: {self._absence(kind)}; {instead}")

    def _absence(self, kind: ArtifactKind) -> str:
        return "is no file" if os.path.lexists(self.episode.usual[kind]) else "is missing"

    def _check_length(self, kind: ArtifactKind, found: int, length: int) -> None:
        if found != length:
            raise DataNotUsableError(f"{self.shown(kind)}: has {found} values, the episode has {length} steps")

    def _convert_pictures(self, length: int, folder: Path, seen: VideoFacts | None) -> VideoFacts | None:
        video, thumbnail = ArtifactKind.RENDERS, ArtifactKind.THUMBNAILS
        if seen is not None and video not in self.episode.files:
            thumbnail_from_video(staged_path(folder, video), staged_path(folder, thumbnail), seen.height, seen.width)
            return seen
        if video not in self.episode.files:
            self._note_missing(video, "the episode has no video")
            return None
        staged = staged_path(folder, video)
        facts = convert_video(self.episode.files[video], staged, length, self.shown(video))
        if thumbnail in self.episode.files:
            target = staged_path(folder, thumbnail)
            convert_thumbnail(self.episode.files[thumbnail], target, self.shown(thumbnail))
        else:
            self._note_missing(thumbnail, "made from the video")
            thumbnail_from_video(staged, staged_path(folder, thumbnail), facts.height, facts.width)
        return facts

    def _artifacts(self, folder: Path) -> dict[ArtifactKind, ArtifactRecord]:
        files = {kind: staged_path(folder, kind) for kind in ArtifactKind}
        return {
            kind: ArtifactRecord(path=artifact_path(kind, self.key), size=file.stat().st_size, sha256=file_digest(file))
            for kind, file in files.items()
            if file.exists()
        }

    def _manifest(
        self,
        columns: EpisodeColumns,
        uncertainty_kind: str,
        video: VideoFacts | None,
        digest: str,
        artifacts: Mapping[ArtifactKind, ArtifactRecord],
    ) -> Manifest:
        length = len(columns.rewards)
        return Manifest(
            experiment=self.key.experiment,
            checkpoint=self.key.checkpoint,
            step=self.target.step,
            episode=self.key.episode,
            environment=self.target.environment,
            policy=PolicyRecord(kind=IMPORTED, algorithm=self.target.algorithm),
            request_digest=digest,
            run_seed=None,
            seed=columns.seed,
            max_steps=None,
            episode_return=float(columns.cumulative[-1]),
            episode_length=length,
            terminated=columns.terminated,
            truncated=columns.truncated,
            frames=length if video else 0,
            fps=video.fps if video else None,
            frame_height=video.height if video else None,
            frame_width=video.width if video else None,
            uncertainty_kind=uncertainty_kind,
            action_names=self.target.action_names,
            versions={},
            artifacts=dict(artifacts),
        )
