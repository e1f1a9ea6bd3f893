"""A folder that ``datasets.load_dataset`` reads, a row per step, with a folder for ``imitation`` in it.

``data/train-00000-of-00001.parquet …``, ``meta/stats.json``, ``README.md``. The library knows a data set again by such
names and the files' times; told by ``README.md`` where its files are, it gives one folder ``random`` from its cache for
another. ``trajectories/`` is what
``imitation.data.serialize.load`` takes: ``Dataset.save_to_disk``'s layout, a row per episode with T+1
observations; only plain spaces have it.
Formats: https://huggingface.co/docs/datasets/repository_structure and imitation 1.0's ``huggingface_utils``.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rlhfblender_core.dataset.infos import info_from_json
from rlhfblender_core.export.card import Card, card_text
from rlhfblender_core.export.columns import EpisodeColumns, is_text
from rlhfblender_core.export.data_sets import Build
from rlhfblender_core.export.parquet import ParquetFiles, arrow_last, arrow_rows
from rlhfblender_core.export.statistics import FeatureStatistics, as_json
from rlhfblender_core.untrusted.npz import reading_arrays

#: Episodes, or bytes of them, that wait until they are written as one batch.
_BATCH_EPISODES, _BATCH_BYTES = 1000, 32 << 20
#: What jsonpickle, with which imitation reads infos, would take for an object to be made.
_OBJECT_MARK = "py/"


def write_datasets(build: Build, place: Path) -> None:
    """Writes a build's data set; see :class:`~rlhfblender_core.export.data_sets.DataSetFormat`."""
    files = ParquetFiles(str(place / "data" / "train-{:05d}.parquet"))
    trajectories = _Trajectories(place / "trajectories")
    statistics, card = FeatureStatistics(), Card.of(build)
    for columns in build.columns():
        features = step_features(columns)
        files.add(_columns(columns, features))
        statistics.add(features)
        card.add(columns)
        trajectories.add(columns)
    files.close()
    _name_shards(place / "data")
    trajectories.close()
    (place / "meta").mkdir(parents=True, exist_ok=True)
    (place / "meta" / "stats.json").write_text(as_json(statistics))
    (place / "README.md").write_text(card_text(card, statistics, _LOADING), encoding="utf-8")


def _name_shards(folder: Path) -> None:
    shards = sorted(folder.iterdir())
    for number, file in enumerate(shards):
        file.rename(folder / f"train-{number:05d}-of-{len(shards):05d}.parquet")


_LOADING = """```python
import datasets

steps = datasets.load_dataset("{place}", split="train")  # a row per step
```

With `imitation`, where there is a folder `trajectories`: `imitation.data.serialize.load("{place}/trajectories")`.
"""


def step_features(columns: EpisodeColumns) -> dict[str, np.ndarray[Any, Any]]:
    """(T, …) by the name of the feature: what was observed, what was done, what came of it."""
    features = {_named("observation", name): rows for name, rows in columns.observations.items()}
    features |= {"action": columns.actions, "reward": columns.rewards}
    return {**features, **columns.policy}


def _named(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if name else prefix


def _columns(columns: EpisodeColumns, features: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, pa.Array]:
    length = len(columns)
    finals = {
        _named("final_observation", name): arrow_last(rows, None if columns.finals is None else columns.finals[name])
        for name, rows in columns.observations.items()
    }
    return {
        "episode": pa.array(np.full(length, columns.episode.number)),
        "step": pa.array(np.arange(length)),
        **{name: arrow_rows(rows) for name, rows in features.items()},
        "terminated": pa.array(columns.terminated),
        "truncated": pa.array(columns.truncated),
        "info": arrow_rows(columns.infos),
        **finals,
    }


class _Trajectories:
    """What ``Dataset.save_to_disk`` writes: Arrow's stream format, a row per episode."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0

    def add(self, columns: EpisodeColumns) -> None:
        observations = columns.observations.get("")
        if observations is None or is_text(observations) or columns.finals is None:
            return
        observations = np.concatenate([observations, columns.finals[""][np.newaxis]])
        with reading_arrays(f"Episode {columns.episode.id}"):
            infos = pa.array([harmless(text) for text in columns.infos.tolist()])
        row = {
            "obs": _one_list(arrow_rows(observations)),
            "acts": _one_list(arrow_rows(columns.actions)),
            "infos": _one_list(infos),
            "terminal": pa.array([bool(columns.terminated[-1])]),
            "rews": _one_list(pa.array(columns.rewards)),
        }
        table = pa.table(row)
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        if len(self._waiting) >= _BATCH_EPISODES or self._waiting_bytes >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).combine_chunks()
        if self._writer is None:
            self._folder.mkdir(parents=True)
            self._writer = pa.ipc.new_stream(self._folder / _ARROW, table.schema)
        self._writer.write_table(table)
        self._waiting, self._waiting_bytes = [], 0

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            (self._folder / "dataset_info.json").write_text("{}")
            (self._folder / "state.json").write_text(json.dumps(_STATE, indent=2))


_ARROW = "data-00000-of-00001.arrow"
_STATE: Mapping[str, object] = {
    "_data_files": [{"filename": _ARROW}],
    "_fingerprint": "0" * 16,
    "_format_columns": None,
    "_format_kwargs": {},
    "_format_type": None,
    "_output_all_columns": False,
    "_split": None,
}


def _one_list(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def harmless(text: str) -> str:
    """The info's JSON without keys that would have jsonpickle make objects: it runs what they name."""
    if _OBJECT_MARK not in text.replace("\\/", "/") and "\\u" not in text:
        return text
    return json.dumps(_renamed(info_from_json(text)))


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {f"_{key}" if key.startswith(_OBJECT_MARK) else key: _renamed(inner) for key, inner in value.items()}
    return [_renamed(inner) for inner in value] if isinstance(value, list) else value
