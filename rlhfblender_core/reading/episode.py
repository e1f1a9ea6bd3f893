"""One episode to be used: its arrays, frames, rows. Each is read when it is asked for, and not kept."""

import contextlib
import io
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.argument_types import check_arguments, place_in
from rlhfblender_core.dataset.infos import info_from_json
from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, manifest_path
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.dataset.video import Frame, even, read_frame, read_frames
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.runs.folders import open_scratch
from rlhfblender_core.storage import DataRoot, fetch_file, read_bytes
from rlhfblender_core.untrusted.npy import parse_npy
from rlhfblender_core.untrusted.npz import Arrays, open_arrays, reading_arrays

if TYPE_CHECKING:
    import gymnasium as gym

_OBSERVATION, _FINAL = "obs", "final_"
#: Members of the ``.npz`` that don't have one row per step.
_OF_EPISODE = frozenset({"episode_return", "episode_length", "seed"})


@dataclass(frozen=True)
class Episode:
    """An episode of a data set. Only its manifest is kept once it was read; arrays are read at each access.

    Attributes:
        key: experiment, checkpoint and number.
        root: the data root.
    """

    key: EpisodeKey
    root: DataRoot = field(repr=False)

    @cached_property
    def manifest(self) -> Manifest:
        """Everything known about the episode.

        Raises:
            DataNotUsableError: there is none, or it is damaged.
        """
        path = manifest_path(self.key)
        try:
            return parse_manifest(read_bytes(self.root, path), path)
        except FileNotFoundError as error:
            raise DataNotUsableError(f"There is no episode {self.id} in {self.root.url}.") from error

    @classmethod
    def from_manifest(cls, manifest: Manifest, root: DataRoot) -> "Episode":
        """The episode that a manifest on that data root describes."""
        episode = cls(EpisodeKey(manifest.experiment, manifest.checkpoint, manifest.episode), root)
        episode.__dict__["manifest"] = manifest  # as the property keeps it
        return episode

    @property
    def id(self) -> str:
        """``<experiment>/<checkpoint>/<number>``."""
        return f"{self.key.experiment}/{self.key.checkpoint}/{self.key.episode}"

    @property
    def experiment(self) -> str:
        """Name of its experiment."""
        return self.key.experiment

    @property
    def checkpoint(self) -> str:
        """Label of its checkpoint: ``100000``, ``final``, ``best``, ``random``."""
        return self.key.checkpoint

    @property
    def number(self) -> int:
        """From 0 inside its checkpoint."""
        return self.key.episode

    @property
    def step(self) -> int | None:
        """Training steps of its checkpoint, where known."""
        return self.manifest.step

    @property
    def seed(self) -> int | None:
        """What ``env.reset(seed=…)`` got; None where it isn't known."""
        return self.manifest.seed

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of rewards."""
        return self.manifest.episode_return

    @property
    def episode_length(self) -> int:
        """Number of steps T."""
        return self.manifest.episode_length

    def __len__(self) -> int:
        return self.episode_length

    def keys(self) -> tuple[str, ...]:
        """Names of its arrays, as :meth:`__getitem__` takes them."""
        with self.open() as arrays:
            return tuple(arrays)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """An array by its name in the ``.npz`` (``obs``, ``actions``, ``rewards``, ``probs``, ``values`` …), (T, …).

        Raises:
            KeyError: it has none of that name.
            DataNotUsableError: the file is gone or damaged.
        """
        with self.open() as arrays:
            if name not in arrays:
                raise KeyError(f"Episode {self.id} has no {name!r}; it has {', '.join(arrays)}.")
            return arrays[name]

    def open(self) -> AbstractContextManager[Arrays]:
        """A context manager that gives all arrays by name, with the file opened once.

        Raises:
            DataNotUsableError: the file is gone or damaged.
        """
        path = self._path(ArtifactKind.EPISODES)
        if self.root.is_local:
            file = fetch_file(self.root, path, Path())
            if not file.is_file():
                raise self._gone(path)
            return open_arrays(file, self.root.display_url(path))
        return open_arrays(io.BytesIO(self._content(path)), self.root.display_url(path))

    @property
    def observations(self) -> Any:
        """T+1 observations, the final one included: an array, or a dictionary of them where the space is a Dict.

        Of an imported episode whose source doesn't have the final one they are T. Columns of nested spaces keep their
        names (``arm.angle``).
        """
        with self.open() as arrays:
            return _with_final(arrays)

    @property
    def actions(self) -> NDArray[Any]:
        """(T, …): ``actions[t]`` was taken in ``observations[t]``."""
        return self["actions"]

    @property
    def rewards(self) -> NDArray[Any]:
        """(T,) float64: ``rewards[t]`` came back from ``actions[t]``."""
        return self["rewards"]

    @property
    def terminations(self) -> NDArray[np.bool_]:
        """(T,) bool: where the environment ended the episode."""
        return self["terminated"]

    @property
    def truncations(self) -> NDArray[np.bool_]:
        """(T,) bool: where it was cut off."""
        return self["truncated"]

    @property
    def infos(self) -> list[dict[str, Any]]:
        """T dictionaries: what ``step`` told besides.

        Raises:
            DataNotUsableError: the file is gone or damaged.
        """
        return [self._info(text) for text in self["infos"].tolist()]

    def _info(self, text: object) -> dict[str, Any]:
        with reading_arrays(self.root.display_url(self._path(ArtifactKind.EPISODES))):
            return info_from_json(text)

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """(T,) float32; what it measures is ``manifest.uncertainty_kind``. NaN where the algorithm has none."""
        return self._column(ArtifactKind.UNCERTAINTY)

    @property
    def cumulative_rewards(self) -> NDArray[np.float64]:
        """(T,) float64: the sum of rewards so far."""
        return self._column(ArtifactKind.REWARDS)

    @property
    def has_video(self) -> bool:
        """Whether there are frames."""
        return ArtifactKind.RENDERS in self.manifest.artifacts

    def frames(self) -> Iterator[Frame]:
        """T frames one after another, (height, width, 3) uint8 RGB: frame t shows ``observations[t]``.

        Raises:
            DataNotUsableError: the episode has no video, or it doesn't decode.
        """
        height, width = self._frame_shape()
        count = 0
        for frame in read_frames(self.video_file, even(height), even(width)):
            yield frame[:height, :width]
            count += 1
        if count != self.manifest.frames:
            raise DataNotUsableError(
                f"The video of episode {self.id} has {count} frames instead of {self.manifest.frames}. "
                "Run `python flows/verify.py --repair`."
            )

    def frame(self, t: int) -> Frame:
        """The frame of step ``t``, (height, width, 3) uint8 RGB, without decoding those before it. -1 is the last.

        Raises:
            IndexError: the episode has no such step.
            DataNotUsableError: the episode has no video, or it doesn't decode.
        """
        index = place_in(t, len(self), "step")
        height, width = self._frame_shape()
        frame = read_frame(self.video_file, index, self.manifest.fps or 1.0, even(height), even(width))
        if frame is None:
            raise DataNotUsableError(
                f"The video of episode {self.id} has no frame {index}. Run `python flows/verify.py --repair`."
            )
        return frame[:height, :width]

    def video(self) -> NDArray[np.uint8]:
        """All frames at once, (T, height, width, 3) uint8 RGB: 0.7 MB each at 600×400."""
        return np.stack(list(self.frames()))

    def steps(self) -> Iterator[dict[str, Any]]:
        """A row per step: ``experiment``, ``checkpoint``, ``episode``, ``t``, and every array's row by its name.

        ``infos`` is the dictionary, and ``uncertainty`` the file's number.
        """
        place = {"experiment": self.experiment, "checkpoint": self.checkpoint, "episode": self.number}
        with self.open() as arrays:
            columns = {name: arrays[name] for name in arrays if has_rows(name)}
        columns["uncertainty"] = self.uncertainty
        for t in range(len(self)):
            row = {name: _plain(column[t]) for name, column in columns.items()}
            yield {**place, "t": t, **row, "infos": self._info(row["infos"])}

    @check_arguments
    def replay(self, *, render: bool = False, database_url: str | None = None) -> "Iterator[gym.Env[Any, Any]]":
        """Plays the episode again from its seed and actions: the environment at each of its T steps, before the action.

        Observations and rewards are compared with the recorded ones, so what is given is exact. It is made in this
        process, in the agent's wrappers (``env.unwrapped`` is without them), and closed at the end. Where the
        data set is somebody else's, see SECURITY.md on what may be made.

        Args:
            render: whether ``env.render()`` gives pictures.
            database_url: of the registry that the data set was made with; None for SQLite beside the data.

        Raises:
            DataNotUsableError: the episode was made elsewhere, or goes another way than recorded.
            EnvironmentNotTrustedError: the environment would be made with what only the data set names.
            RequestError: the environment can't be made here.
        """
        from rlhfblender_core.locations import locate  # with SQLAlchemy and Gymnasium, which reading never needs
        from rlhfblender_core.rollout.replay import replay_of, replayed

        trust = locate(self.root.url, database_url, self.root.options).trust()
        try:
            with self.open() as arrays:
                for moment in replayed(replay_of(self.manifest, trust, render=render), arrays):
                    if moment.step < len(self):
                        yield moment.env
        except DataNotUsableError as error:
            raise DataNotUsableError(f"Episode {self.id} can't be played again: {error}") from error

    def __getstate__(self) -> Mapping[str, Any]:
        """Without a video that was fetched: another process fetches its own."""
        return {
            name: value for name, value in self.__dict__.items() if not name.startswith("_") and name != "video_file"
        }

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)

    def _path(self, kind: ArtifactKind) -> str:
        record = self.manifest.artifacts.get(kind)
        if record is None:
            raise DataNotUsableError(f"Episode {self.id} was made without {kind}.")
        return record.path

    def _content(self, path: str) -> bytes:
        try:
            return read_bytes(self.root, path)
        except FileNotFoundError as error:
            raise self._gone(path) from error

    def _gone(self, path: str) -> DataNotUsableError:
        return DataNotUsableError(f"{self.root.display_url(path)} is gone. Run `python flows/verify.py --repair`.")

    def _column(self, kind: ArtifactKind) -> NDArray[Any]:
        path = self._path(kind)
        with reading_arrays(self.root.display_url(path)):
            return parse_npy(self._content(path)).copy()  # writable

    def _frame_shape(self) -> tuple[int, int]:
        height, width = self.manifest.frame_height, self.manifest.frame_width
        if not self.has_video or not height or not width:
            raise DataNotUsableError(f"Episode {self.id} was made without a video.")
        return height, width

    @cached_property
    def video_file(self) -> Path:
        """The video on this machine: the data root's own file, or a copy that goes with this object.

        Raises:
            DataNotUsableError: the episode was made without, or it is gone.
        """
        path = self._path(ArtifactKind.RENDERS)
        try:
            file = fetch_file(self.root, path, Path() if self.root.is_local else self._folder)
        except FileNotFoundError as error:
            raise self._gone(path) from error
        if not file.is_file():
            raise self._gone(path)
        return file

    @cached_property
    def _folder(self) -> Path:
        """For a video that is fetched; it goes with the episode."""
        stack = contextlib.ExitStack()
        folder = stack.enter_context(open_scratch())
        weakref.finalize(self, stack.close)
        return folder


def has_rows(name: str) -> bool:
    """Whether an array of that name has a row per step."""
    return name not in _OF_EPISODE and not name.startswith(_FINAL)


def observed_columns(arrays: Arrays) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]] | None]:
    """What was observed, (T, …) by the name of its column (``""``, or ``arm.angle`` of nested spaces), and at the end.

    Args:
        arrays: of an episode's ``.npz``.

    Returns:
        The columns, and the last observation's; None for an imported episode whose source doesn't say it.
    """
    names = [name for name in arrays if name == _OBSERVATION or name.startswith(f"{_OBSERVATION}.")]
    plain = {name: name.removeprefix(_OBSERVATION).removeprefix(".") for name in names}
    is_known = all(f"{_FINAL}{name}" in arrays for name in names)
    finals = {plain[name]: arrays[f"{_FINAL}{name}"] for name in names} if is_known else None
    return {plain[name]: arrays[name] for name in names}, finals


def _with_final(arrays: Arrays) -> Any:
    columns, finals = observed_columns(arrays)
    if finals is not None:
        columns = {name: np.concatenate([column, finals[name][np.newaxis]]) for name, column in columns.items()}
    return columns.get("", columns)


def _plain(value: Any) -> Any:
    """A number or text as Python's own; an array as it is."""
    return value.item() if isinstance(value, np.generic) else value
