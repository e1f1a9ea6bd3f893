"""One HDF5 file per checkpoint, with the keys of D4RL: all steps of all episodes in a row.

``observations``, ``next_observations``, ``actions``, ``rewards``, ``terminals``, ``timeouts``, ``infos/…``; of Dict and
Tuple spaces ``observations`` is a group. An episode ends where ``terminals`` or ``timeouts`` says so: one that was cut
off by nobody has a timeout in its last step. Format: D4RL (Fu et al. 2020), https://github.com/Farama-Foundation/D4RL.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.infos import info_from_json
from rlhfblender_core.export.columns import EpisodeColumns, is_text, storable_texts
from rlhfblender_core.export.data_sets import Build
from rlhfblender_core.export.minari.episodes import minari_infos
from rlhfblender_core.export.statistics import FeatureStatistics
from rlhfblender_core.untrusted.npz import reading_arrays

#: Rows that are written at once.
_BUFFER_ROWS = 4096
#: HDF5's attributes have 64 KiB with their names.
_ATTRIBUTE_BYTES = 60 << 10
#: Of the infos, as they are; those that are numbers in every step are arrays of their own beside it.
_INFO_TEXTS = "infos/json"
#: Left out where an episode was imported without its last observation; D4RL's readers can do without.
_FOLLOWING = "next_observations"
#: D4RL's names for what a policy says of a step, where it has some.
_POLICY_KEYS = {"log_probs": "infos/action_log_probs"}


def write_hdf5(build: Build, place: Path) -> None:
    """Writes a build's data set; see :class:`~rlhfblender_core.export.data_sets.DataSetFormat`."""
    import h5py

    statistics = FeatureStatistics()
    with h5py.File(place, "w") as file:
        rows, facts = _Rows(file), _Rows(file)
        for columns in build.columns():
            arrays = dict(_arrays(columns))
            following = dict(_observed(_FOLLOWING, columns.next_observations or {}))
            rows.add(arrays, optional=following | _info_columns(columns))
            facts.add(dict(_facts(columns)), optional={})
            numbers = {**arrays, **following}
            statistics.add({name: column for name, column in numbers.items() if not isinstance(column, list)})
        rows.flush()
        facts.flush()
        if _FOLLOWING in file and not len(file[_FOLLOWING]):  # the group of a Dict's columns, which are gone
            del file[_FOLLOWING]
        for name, found in statistics.results().items():
            if name in file and found.mean.nbytes <= _ATTRIBUTE_BYTES:
                numbers = {"min": found.minimum, "max": found.maximum, "mean": found.mean, "std": found.std}
                file[name].attrs.update(numbers)
        file.attrs.update(_attributes(build))


def _arrays(columns: EpisodeColumns) -> Iterator[tuple[str, NDArray[Any] | list[str]]]:
    yield from _observed("observations", columns.observations)
    timeouts = columns.truncated.copy()
    timeouts[-1] |= not columns.terminated[-1]
    yield "actions", columns.actions
    yield "rewards", columns.rewards
    yield "terminals", columns.terminated
    yield "timeouts", timeouts
    yield _INFO_TEXTS, columns.infos.tolist()
    for name, column in columns.policy.items():
        yield _POLICY_KEYS.get(name, f"infos/{name}"), column


def _observed(name: str, columns: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any] | list[str]]]:
    for key, column in columns.items():
        yield f"{name}/{_member(key)}" if key else name, storable_texts(column) if is_text(column) else column


def _facts(columns: EpisodeColumns) -> Iterator[tuple[str, NDArray[Any]]]:
    """One row per episode."""
    episode = columns.episode
    yield "metadata/episode", np.array([episode.number])
    yield "metadata/length", np.array([len(columns)])
    yield "metadata/return", np.array([episode.episode_return])
    yield "metadata/seed", np.array([-1 if episode.seed is None else episode.seed])


def _info_columns(columns: EpisodeColumns) -> dict[str, NDArray[Any]]:
    """Infos that are numbers of one kind in every step."""
    with reading_arrays(f"Episode {columns.episode.id}"):
        found = minari_infos([info_from_json(text) for text in columns.infos.tolist()])
    taken = {"json", *columns.policy, *(key.rpartition("/")[2] for key in _POLICY_KEYS.values())}
    return {
        f"infos/{name}": column
        for name, column in found.items()
        if isinstance(column, np.ndarray) and name not in taken
    }


def _member(key: str) -> str:
    """A column's name in HDF5, where ``/`` separates groups."""
    return key.encode(errors="backslashreplace").decode().replace("/", "%2F").replace("\0", "%00")


def _attributes(build: Build) -> Mapping[str, Any]:
    job = build.job
    return {
        "env_id": job.source.record.env_id,
        "experiment": job.key.experiment,
        "checkpoint": job.key.checkpoint,
        "algorithm": job.checkpoint.algorithm or "random",
    }


class _Rows:
    """Arrays in a file that grow by some thousand rows at a time."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._waiting: dict[str, list[Any]] = {}
        self._optional: list[str] | None = None
        self._rows = 0

    def add(self, columns: Mapping[str, Any], *, optional: Mapping[str, Any]) -> None:
        """Adds an episode's rows.

        Args:
            columns: which every episode has.
            optional: which they may have: what one lacks, or has in another form than those before, goes.
        """
        if self._optional is None:
            self._optional = list(optional)
        for name in tuple(self._optional):
            if name not in optional or not self._fits(name, optional[name]):
                self._optional.remove(name)
                self._waiting.pop(name, None)
                if name in self._file:
                    del self._file[name]
        kept = {name: optional[name] for name in self._optional}
        for name, rows in {**columns, **kept}.items():
            self._waiting.setdefault(name, []).append(rows)
        self._rows += len(next(iter(columns.values())))
        if self._rows >= _BUFFER_ROWS:
            self.flush()

    def _fits(self, name: str, rows: Any) -> bool:
        if isinstance(rows, list):  # texts, of any width
            return True
        before = self._waiting.get(name)
        known = before[0] if before else self._file.get(name)
        return known is None or (known.dtype == rows.dtype and known.shape[1:] == rows.shape[1:])

    def flush(self) -> None:
        """Writes what waits."""
        for name, parts in self._waiting.items():
            rows = list(chain(*parts)) if isinstance(parts[0], list) else np.concatenate(parts)
            if name not in self._file:
                self._create(name, rows)
            array = self._file[name]
            array.resize(len(array) + len(rows), axis=0)
            array[-len(rows) :] = rows
        self._waiting, self._rows = {}, 0

    def _create(self, name: str, rows: Any) -> None:
        import h5py

        texts = isinstance(rows, list)
        shape = () if texts else rows.shape[1:]
        dtype = h5py.string_dtype() if texts else rows.dtype
        # Pictures shrink twenty-fold; vectors hardly, and every reader would pay for it.
        packing = {"compression": "gzip", "compression_opts": 1} if len(shape) > 1 else {}
        self._file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), **packing)
