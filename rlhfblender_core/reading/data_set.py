"""A data set to be used: in a notebook, in a trainer. It is read from the manifests; no registry is needed.

``open_data_set("data")`` takes any fsspec URL. Names are Minari's and LeRobot's where they mean the same.
"""

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, SupportsIndex

from rlhfblender_core.argument_types import as_type, check_arguments, place_in
from rlhfblender_core.dataset.layout import (
    MANIFESTS,
    CheckpointKey,
    EpisodeKey,
    manifest_folder,
    manifest_path,
    parse_episode_number,
)
from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError
from rlhfblender_core.names import is_name
from rlhfblender_core.reading.episode import Episode
from rlhfblender_core.storage import DataRoot, list_folders, list_sizes, open_data_root, read_many
from rlhfblender_core.wording import counted, did_you_mean

if TYPE_CHECKING:
    import pandas
    import torch

    from rlhfblender_core.reading.segments import Segment
    from rlhfblender_core.report.summary import Report

#: Manifests that are read side by side.
_BATCH = 64

Condition = Callable[[Episode], bool]


@check_arguments
def open_data_set(
    data_root: str | os.PathLike[str] = "data", storage_options: Mapping[str, Any] | None = None
) -> "DataSet":
    """The episodes below a data root; nothing but names is read yet.

    Args:
        data_root: folder or fsspec URL.
        storage_options: for fsspec.

    Raises:
        StorageNotUsableError: the data root can't be opened.
        DataNotUsableError: there are no episodes.
    """
    found = find_episodes(open_data_root(data_root, storage_options))
    if not found.keys:
        raise DataNotUsableError(f"There are no episodes in {found.root.url}. Check the data root, or generate some.")
    return found


#: Checkpoints that a data set's name has.
_MOST_NAMED = 4


def find_episodes(root: DataRoot, experiment: str | None = None, report: "Report | None" = None) -> "DataSet":
    """The episodes of one experiment, or of all; there may be none.

    Args:
        root: the data root.
        experiment: its name; None for all.
        report: what was made of them just now.
    """
    experiments = list_folders(root, MANIFESTS) if experiment is None else [experiment]
    keys = [
        CheckpointKey(name, checkpoint)
        for name in experiments
        if is_name(name)
        for checkpoint in list_folders(root, f"{MANIFESTS}/{name}")
        if is_name(checkpoint)
    ]
    return DataSet(root, tuple(sorted(keys, key=_in_training_order)), report=report)


def _in_training_order(key: CheckpointKey) -> tuple[str, int, float, str]:
    """By experiment, the random baseline first, then by training steps, then ``best`` and ``final``."""
    label = key.checkpoint
    is_step = label.isascii() and label.isdigit()
    return key.experiment, (1 if is_step else 0 if label == "random" else 2), float(label) if is_step else 0, label


@dataclass(frozen=True, repr=False)
class DataSet(Sequence[Episode]):
    """Episodes in order: by experiment, checkpoint and number.

    Attributes:
        root: where they are.
        keys: their checkpoints.
        conditions: that an episode has to meet to be one of them.
        report: what was made, where :func:`rlhfblender_core.generate` returned the data set.
    """

    root: DataRoot
    keys: tuple[CheckpointKey, ...]
    conditions: tuple[Condition, ...] = ()
    report: "Report | None" = field(default=None, compare=False)

    def __repr__(self) -> str:
        names = [f"{key.experiment}/{key.checkpoint}" for key in self.keys[:_MOST_NAMED]]
        names += [f"… ({len(self.keys):,} checkpoints)"] if len(self.keys) > _MOST_NAMED else []
        met = f", those that meet {counted(len(self.conditions), 'condition')}" if self.conditions else ""
        return f"<DataSet {self.root.url}: {', '.join(names) or 'no episodes'}{met}>"

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the experiments."""
        return tuple(dict.fromkeys(key.experiment for key in self.keys))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Labels of the checkpoints, in the order of training."""
        return tuple(dict.fromkeys(key.checkpoint for key in self.keys))

    @check_arguments
    def experiment(self, name: str) -> "DataSet":
        """The episodes of one experiment.

        Raises:
            InvalidParameterError: there is no such experiment.
        """
        return self._of("experiment", name, self.experiments, [key for key in self.keys if key.experiment == name])

    @check_arguments
    def checkpoint(self, label: str | int) -> "DataSet":
        """The episodes of one checkpoint, in each experiment that has it.

        Raises:
            InvalidParameterError: there is no such checkpoint.
        """
        label = str(label)
        return self._of("checkpoint", label, self.checkpoints, [key for key in self.keys if key.checkpoint == label])

    def _of(self, what: str, name: str, known: Sequence[str], keys: Sequence[CheckpointKey]) -> "DataSet":
        if not keys:
            raise InvalidParameterError(f"There is no {what} {name!r} in {self.root.url}. {did_you_mean(name, known)}")
        return replace(self, keys=tuple(keys))

    @check_arguments
    def filter_episodes(self, condition: Condition) -> "DataSet":
        """Those episodes for which it is true: ``filter_episodes(lambda episode: episode.episode_return > 100)``."""
        return replace(self, conditions=(*self.conditions, condition))

    @check_arguments
    def where(self, condition: str) -> "DataSet":
        """Those episodes that meet a condition as ``--where`` takes it: ``where("return > 100 and length < 500")``.

        Raises:
            InvalidParameterError: it is no condition.
        """
        return self.filter_episodes(_Meets(condition))

    @check_arguments
    def episode(self, number: int) -> Episode:
        """Episode ``number`` of the one checkpoint that is chosen.

        Raises:
            InvalidParameterError: several checkpoints are chosen, or it has no such episode.
        """
        if len(self.keys) != 1:
            raise InvalidParameterError(
                f"Episode {number} of which checkpoint? Choose by experiment() and checkpoint(): "
                f"{', '.join(f'{key.experiment}/{key.checkpoint}' for key in self.keys[:8])}."
            )
        key = self.keys[0]
        found = list(self._chosen([EpisodeKey(key.experiment, key.checkpoint, number)])) if number >= 0 else []
        if not found:
            raise InvalidParameterError(f"{key.experiment}/{key.checkpoint} has no episode {number}.")
        return found[0]

    def __iter__(self) -> Iterator[Episode]:
        """The episodes, their manifests read some at a time: memory doesn't grow with their number."""
        return self._read(self._keys())

    iterate_episodes = __iter__

    def _keys(self) -> Iterator[EpisodeKey]:
        """Of all episodes, whatever the conditions."""
        for key in self.keys:
            for number in self._numbers(key):
                yield EpisodeKey(key.experiment, key.checkpoint, number)

    def _numbers(self, key: CheckpointKey) -> list[int]:
        names = list_sizes(self.root, manifest_folder(key))
        return sorted(number for name in names if (number := parse_episode_number(name, ".json")) is not None)

    def _read(self, keys: Iterable[EpisodeKey]) -> Iterator[Episode]:
        keys = iter(keys)
        while batch := list(islice(keys, _BATCH)):
            yield from self._chosen(batch)

    def _chosen(self, keys: Sequence[EpisodeKey]) -> Iterator[Episode]:
        contents = read_many(self.root, [manifest_path(key) for key in keys])
        for key in keys:
            path = manifest_path(key)
            if path in contents:  # else deleted meanwhile
                episode = Episode.from_manifest(parse_manifest(contents[path], path), self.root)
                if all(condition(episode) for condition in self.conditions):
                    yield episode

    def __len__(self) -> int:
        if not self.conditions:
            return sum(len(self._numbers(key)) for key in self.keys)
        return sum(1 for _ in self)

    def __getitem__(self, index: Any) -> Any:
        """The episode at a place in the order, or a list of those of a slice."""
        if isinstance(index, slice):
            if self.conditions:
                return list(self)[index]
            return list(self._read(list(self._keys())[index]))
        place = place_in(index, len(self), "episode")
        if self.conditions:
            return next(islice(self, place, None))
        for key in self.keys:
            numbers = self._numbers(key)
            if place < len(numbers):
                return Episode(EpisodeKey(key.experiment, key.checkpoint, numbers[place]), self.root)
            place -= len(numbers)
        raise IndexError(f"There is no episode {index} any more: some were deleted meanwhile.")

    @property
    def total_episodes(self) -> int:
        """How many episodes there are."""
        return len(self)

    @property
    def total_steps(self) -> int:
        """How many steps they have together."""
        return sum(episode.episode_length for episode in self)

    def to_pandas(self) -> "pandas.DataFrame":
        """A row per episode: whose it is, its seed, return, length, how it ended, and what is known of the agent.

        Raises:
            InvalidParameterError: pandas isn't installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise InvalidParameterError(
                "to_pandas() needs a package that is missing. Install it: pip install pandas."
            ) from error
        return pd.DataFrame(map(_row, self), columns=list(_COLUMNS))

    def steps(self) -> Iterator[dict[str, Any]]:
        """A row per step of all episodes, one episode in memory: see :meth:`Episode.steps`."""
        for episode in self:
            yield from episode.steps()

    def segments(self, length: int = 50, *, seed: int = 0, n: int | None = None) -> Iterator["Segment"]:
        """Pieces of episodes: see :func:`rlhfblender_core.reading.segments.cut_segments`."""
        from rlhfblender_core.reading.segments import cut_segments

        return islice(cut_segments(self, *_cut(length, seed)), _how_many(n))

    def segment_pairs(
        self, length: int = 50, *, seed: int = 0, n: int | None = None
    ) -> Iterator[tuple["Segment", "Segment"]]:
        """Pairs of pieces of different episodes, to be compared: no piece is in two of them."""
        from rlhfblender_core.reading.segments import pair_segments

        return islice(pair_segments(self, *_cut(length, seed)), _how_many(n))

    @check_arguments
    def torch(
        self, length: int = 50, *, stride: int | None = None, keys: str | Sequence[str] = ("obs", "actions", "rewards")
    ) -> "torch.utils.data.Dataset[dict[str, torch.Tensor]]":
        """A map-style data set of windows: see :class:`rlhfblender_core.reading.windows.Windows`."""
        from rlhfblender_core.reading.windows import Windows

        names = (keys,) if isinstance(keys, str) else tuple(keys)
        return Windows(self, length, length if stride is None else stride, names)


def _cut(length: int, seed: int) -> tuple[int, int]:
    """Before the first piece is asked for: those are cut as they are."""
    return as_type("length", length, int), as_type("seed", seed, int)


def _how_many(n: int | None) -> int | None:
    if n is not None and (not isinstance(n, SupportsIndex) or operator.index(n) < 0):
        raise InvalidParameterError(f"n says how many at most: a whole number from 0, or None for all, not {n!r}.")
    return n


class _Meets:
    """A condition in words; it goes to other processes as such."""

    def __init__(self, text: str) -> None:
        from rlhfblender_core.dataset.publish import episode_record  # with SQLAlchemy, which reading never needs
        from rlhfblender_core.dataset.where import parse_where

        self._where, self._record = parse_where(text), episode_record

    def __call__(self, episode: Episode) -> bool:
        return self._where.matches(self._record(episode.manifest))

    def __reduce__(self) -> tuple[type["_Meets"], tuple[str]]:
        return _Meets, (self._where.text,)


#: Columns of :meth:`DataSet.to_pandas`, and where each comes from.
_COLUMNS: dict[str, Callable[[Episode], Any]] = {
    "experiment": lambda episode: episode.experiment,
    "checkpoint": lambda episode: episode.checkpoint,
    "step": lambda episode: episode.step,
    "episode": lambda episode: episode.number,
    "environment": lambda episode: episode.manifest.environment.id,
    "seed": lambda episode: episode.seed,
    "episode_return": lambda episode: episode.episode_return,
    "episode_length": lambda episode: episode.episode_length,
    "terminated": lambda episode: episode.manifest.terminated,
    "truncated": lambda episode: episode.manifest.truncated,
    "policy": lambda episode: episode.manifest.policy.kind,
    "algorithm": lambda episode: episode.manifest.policy.algorithm,
    "deterministic": lambda episode: episode.manifest.policy.deterministic,
    "uncertainty_kind": lambda episode: episode.manifest.uncertainty_kind,
    "frames": lambda episode: episode.manifest.frames,
    "fps": lambda episode: episode.manifest.fps,
}


def _row(episode: Episode) -> dict[str, Any]:
    return {name: read(episode) for name, read in _COLUMNS.items()}
