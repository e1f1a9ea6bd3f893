"""The files of one episode while it is rolled out: arrays, cumulative rewards, uncertainty, video, thumbnail.

Which keys the ``.npz`` has and what they mean is decided here. Files are written to a staging folder of the run; where
they are published is the layout's business.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.infos import info_to_json
from rlhfblender_core.dataset.layout import EXTENSIONS, ArtifactKind
from rlhfblender_core.dataset.npz import ArrayColumn, Column, LargeColumn, TextColumn, WholeArray, write_npy, write_npz
from rlhfblender_core.dataset.thumbnails import ThumbnailPicker, write_thumbnail
from rlhfblender_core.dataset.video import Frame, VideoWriter
from rlhfblender_core.policies.protocol import PolicyStep

#: What a policy may say of a step, and the key it is stored under. float32, as the networks compute.
_POLICY_FIELDS = {
    "probs": "probs",
    "action_mean": "action_mean",
    "action_std": "action_std",
    "log_prob": "log_probs",
    "entropy": "entropy",
    "value": "values",
    "q_values": "q_values",
    "features": "features",
}

#: Steps are kept as they came until there are as many, or their observations fill as many bytes: put into columns
#: together, they cost a quarter of what they would one by one, between a network's kernels that displace that code.
_BLOCK_STEPS, _BLOCK_BYTES = 256, 1 << 18
#: Observations larger than this, in bytes, are written as they come: few of them would fill a block.
_LARGE_ROW = 1 << 12
#: What they may fill in memory, all together: most episodes never go to disk.
_HELD_BYTES = 1 << 26

BLACK = "the video is black throughout"
CONSTANT = "the video never changes"
NOT_A_NUMBER = "the return is NaN"


class Outcome(NamedTuple):
    """What came back from a step: reward, and whether and how the episode ended with it."""

    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EpisodeSummary:
    """An episode in numbers.

    Attributes:
        episode_return: undiscounted sum of rewards.
        length: number of steps T.
        frames: frames of the video: T, or 0 without one.
        frame_shape: (height, width) in pixels, None without a video.
        warnings: what a person should know of it.
    """

    episode_return: float
    length: int
    terminated: bool
    truncated: bool
    frames: int
    frame_shape: tuple[int, int] | None
    warnings: tuple[str, ...]


class _Decision(NamedTuple):
    """Of a row, until it is put into columns: the action is a copy."""

    action: NDArray[Any]
    step: PolicyStep


class EpisodeFiles:
    """Takes one episode step by step; memory doesn't grow with its length.

    Args:
        folder: an existing folder for the files; they are named by kind, ``renders.mp4`` and so on.
        fps: frames per second of the video.

    Use as a context manager: leaving it frees the encoder and temporary files, whatever happened.
    """

    def __init__(self, folder: Path, fps: float) -> None:
        self._folder = folder
        self._fps = fps
        self._observations: dict[str, ArrayColumn] = {}
        self._policy: dict[str, ArrayColumn] = {}
        self._actions: ArrayColumn | None = None
        self._rewards = ArrayColumn(np.float64, (), folder)
        self._cumulative = ArrayColumn(np.float64, (), folder)
        self._terminated = ArrayColumn(np.bool_, (), folder)
        self._truncated = ArrayColumn(np.bool_, (), folder)
        self._dones = ArrayColumn(np.bool_, (), folder)
        self._uncertainty = ArrayColumn(np.float32, (), folder)
        self._infos = TextColumn(folder)
        self._rows: list[dict[str, NDArray[Any]]] = []
        self._decisions: list[_Decision] = []
        self._outcomes: list[tuple[float, bool, bool]] = []
        self._texts: list[str] = []
        self._block_steps = _BLOCK_STEPS
        self._return = 0.0
        self._last: Outcome | None = None
        self._video: VideoWriter | None = None
        self._thumbnail = ThumbnailPicker()
        self._changes = _FrameChanges()

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._folder

    def __enter__(self) -> "EpisodeFiles":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._video is not None:
            self._video.abort()
        for column in self._columns():
            column.close()

    def add_observation(self, observation: Mapping[str, NDArray[Any]]) -> None:
        """What row ``t`` observed, which is copied: the environment and the agent may change theirs.

        Args:
            observation: the environment's own, one entry per column (``obs`` or ``obs.<key>``).
        """
        if not self._observations:
            self._start_observations(observation)
        row = {}
        for name, column in self._observations.items():
            if isinstance(column, LargeColumn):
                column.add(np.asarray(observation[name]))
            else:
                row[name] = np.array(observation[name])
        self._rows.append(row)

    def add_decision(self, step: PolicyStep) -> None:
        """What the policy made of it. The action is copied; what else is in the step has to stay as it is."""
        if self._actions is None:
            self._actions = self._start_decisions(step)
        self._decisions.append(_Decision(np.array(step.action), step))

    def add_frame(self, frame: Frame) -> None:
        """The picture of row ``t``: the state in which the action is taken, (height, width, 3) uint8 RGB."""
        if self._video is None:
            height, width = frame.shape[:2]
            self._video = VideoWriter(self._path(ArtifactKind.RENDERS), height, width, self._fps)
            self._frame_shape = (height, width)
        self._video.write(frame)
        self._thumbnail.offer(frame)
        self._changes.look(frame)

    def add_outcome(self, outcome: Outcome) -> None:
        """The second half of row ``t``: what the action brought."""
        self._last = outcome
        self._outcomes.append(outcome[:3])
        self._texts.append(info_to_json(outcome.info))
        if len(self._outcomes) == self._block_steps:
            self._store()

    def finish(self, final_observation: Mapping[str, NDArray[Any]], seed: int) -> EpisodeSummary:
        """Writes the files.

        Args:
            final_observation: what the environment returned with the last step; no row shows it.
            seed: the episode's seed.
        """
        if self._last is None or self._actions is None:
            raise ValueError("an episode has at least one step")
        self._store()
        length = len(self._rewards)
        columns: dict[str, Column] = {**self._observations}
        columns |= {_final_name(name): WholeArray(np.asarray(value)) for name, value in final_observation.items()}
        columns |= {"actions": self._actions, "rewards": self._rewards, "terminated": self._terminated}
        columns |= {"truncated": self._truncated, "dones": self._dones, "infos": self._infos}
        columns |= {_POLICY_FIELDS[name]: column for name, column in self._policy.items()}
        scalars = {
            "episode_return": np.float64(self._return),
            "episode_length": np.int64(length),
            "seed": np.int64(seed),
        }
        columns |= {name: WholeArray(np.asarray(value)) for name, value in scalars.items()}
        write_npz(self._path(ArtifactKind.EPISODES), columns)
        write_npy(self._path(ArtifactKind.REWARDS), self._cumulative)
        write_npy(self._path(ArtifactKind.UNCERTAINTY), self._uncertainty)
        frames = self._finish_video()
        return EpisodeSummary(
            episode_return=self._return,
            length=length,
            terminated=self._last.terminated,
            truncated=self._last.truncated,
            frames=frames,
            frame_shape=self._frame_shape if frames else None,
            warnings=(*self._changes.warnings(frames), *((NOT_A_NUMBER,) if math.isnan(self._return) else ())),
        )

    def _finish_video(self) -> int:
        if self._video is None:
            return 0
        video, self._video = self._video, None
        video.close()
        if self._thumbnail.frame is not None:
            write_thumbnail(self._path(ArtifactKind.THUMBNAILS), self._thumbnail.frame)
        return video.frames

    def _start_observations(self, observation: Mapping[str, NDArray[Any]]) -> None:
        rows = {name: np.asarray(value) for name, value in observation.items()}
        large = [name for name, row in rows.items() if row.nbytes > _LARGE_ROW]
        for name, row in rows.items():
            if name in large:
                share = _HELD_BYTES // len(large)
                self._observations[name] = LargeColumn(row.dtype, row.shape, self._folder, share)
            else:
                self._observations[name] = ArrayColumn(row.dtype, row.shape, self._folder)

    def _start_decisions(self, step: PolicyStep) -> ArrayColumn:
        """The column of actions."""
        action = np.asarray(step.action)
        actions = ArrayColumn(action.dtype, action.shape, self._folder)
        for name in _POLICY_FIELDS:
            value = getattr(step, name)
            if value is not None:
                self._policy[name] = ArrayColumn(np.float32, np.shape(value), self._folder)
        sized = (*self._observations_in_blocks().values(), *self._policy.values(), actions)
        self._block_steps = max(1, min(_BLOCK_STEPS, _BLOCK_BYTES // sum(column.row_bytes for column in sized)))
        return actions

    def _observations_in_blocks(self) -> dict[str, ArrayColumn]:
        return {name: column for name, column in self._observations.items() if not isinstance(column, LargeColumn)}

    def _store(self) -> None:
        """Puts the steps that are kept into their columns."""
        decisions, outcomes = self._decisions, self._outcomes
        if not outcomes or self._actions is None:
            return
        for name, column in self._observations_in_blocks().items():
            column.extend([row[name] for row in self._rows])
        for name, column in self._policy.items():
            column.extend([getattr(decision.step, name) for decision in decisions])
        self._actions.extend([decision.action for decision in decisions])
        self._uncertainty.extend([decision.step.uncertainty for decision in decisions])
        rewards, terminated, truncated = map(np.array, zip(*outcomes, strict=True))
        with np.errstate(over="ignore", invalid="ignore"):  # vast rewards add up to infinity, as Python's numbers do
            cumulative = np.add.accumulate(np.append(self._return, rewards))[1:]
        self._return = float(cumulative[-1])
        self._rewards.extend(rewards)
        self._cumulative.extend(cumulative)
        self._terminated.extend(terminated)
        self._truncated.extend(truncated)
        self._dones.extend(terminated | truncated)
        self._infos.extend(self._texts)
        self._rows, self._decisions, self._outcomes, self._texts = [], [], [], []

    def _path(self, kind: ArtifactKind) -> Path:
        return staged_path(self._folder, kind)

    def _columns(self) -> list[Column]:
        fixed = [self._rewards, self._cumulative, self._terminated, self._truncated, self._dones, self._uncertainty]
        columns: list[Column] = [*fixed, self._infos, *self._observations.values(), *self._policy.values()]
        return columns if self._actions is None else [*columns, self._actions]


def staged_path(folder: Path, kind: ArtifactKind) -> Path:
    """Where an episode's file of that kind lies in its staging folder."""
    return folder / f"{kind}{EXTENSIONS[kind]}"


def discard_staged(folder: Path) -> None:
    """Removes a staging folder's files and the folder, as far as they are there."""
    for kind in ArtifactKind:
        staged_path(folder, kind).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()


def _final_name(name: str) -> str:
    return f"final_{name}"


class _FrameChanges:
    """Notices videos that show nothing: black throughout, or the same frame throughout.

    Costs a comparison per frame only until the first frame that differs.
    """

    def __init__(self) -> None:
        self._first: Frame | None = None
        self._is_black = True
        self._is_constant = True

    def look(self, frame: Frame) -> None:
        if self._is_black and frame.any():
            self._is_black = False
        if self._first is None:
            self._first = np.array(frame)
        elif self._is_constant and not np.array_equal(frame, self._first):
            self._is_constant = False

    def warnings(self, frames: int) -> tuple[str, ...]:
        if frames and self._is_black:
            return (BLACK,)
        return (CONSTANT,) if frames > 1 and self._is_constant else ()
