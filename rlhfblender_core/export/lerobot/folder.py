"""A data set of LeRobot's format v3: what its files are, and what they say.

``data/`` (a row per step), ``videos/observation.images.render/`` (joined), ``meta/`` (info, statistics, tasks, a row
per episode). The last observation has no place in it: a row is what was seen, done, and came of it.
Format: https://huggingface.co/docs/lerobot/lerobot-dataset-v3, written by ``lerobot.datasets.lerobot_dataset`` 0.4.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import ArtifactKind
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.video import even
from rlhfblender_core.environments.describe import DEFAULT_FPS
from rlhfblender_core.export.card import Card, card_text
from rlhfblender_core.export.columns import EpisodeColumns, is_text, storable_texts
from rlhfblender_core.export.data_sets import Build
from rlhfblender_core.export.lerobot.features import INDICES, RENDER, Feature, features_of, indices
from rlhfblender_core.export.lerobot.stats import LeRobotStatistics
from rlhfblender_core.export.lerobot.videos import JoinedVideos, Place
from rlhfblender_core.export.parquet import ParquetFiles
from rlhfblender_core.export.pictures import thumbnail_of
from rlhfblender_core.export.statistics import FeatureStatistics
from rlhfblender_core.storage import fetch_file

#: LeRobot's own words for where files lie; none of ours holds so many files that a second chunk begins.
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_EPISODES = "meta/episodes/chunk-000/file-{:03d}.parquet"
#: Observed pictures of an episode that its statistics are of, evenly spread.
_PICTURES = 16
#: Observed texts that say what is to be done, as MiniGrid's.
_TASK = "mission"

WITHOUT_VIDEO = "has no video, and others of its checkpoint have one; choose with --episodes, or export them apart"
OTHER_VIDEO = "has a video of another rate or size than the checkpoint's first"


def write_lerobot(build: Build, place: Path) -> None:
    """Writes a build's data set; see :class:`~rlhfblender_core.export.data_sets.DataSetFormat`."""
    film = Film.of(build)
    writer = _Writer(build, place, film)
    for columns in build.columns():
        obstacle = film.obstacle(columns.episode.manifest)
        if obstacle is None:
            writer.add(columns)
        else:
            build.left_out[obstacle] += 1
    writer.close()


@dataclass(frozen=True)
class Film:
    """What the videos of a data set have in common; no size where there are none."""

    fps: float
    size: tuple[int, int] | None

    @classmethod
    def of(cls, build: Build) -> "Film":
        """That of the first episode that has a video."""
        for episode in build.episodes():
            found = cls._of(episode.manifest)
            if found.size is not None:
                return found
        return cls(DEFAULT_FPS, None)

    @classmethod
    def _of(cls, manifest: Manifest) -> "Film":
        if ArtifactKind.RENDERS not in manifest.artifacts or not manifest.frame_height or not manifest.frame_width:
            return cls(DEFAULT_FPS, None)
        return cls(manifest.fps or DEFAULT_FPS, (even(manifest.frame_height), even(manifest.frame_width)))

    def obstacle(self, manifest: Manifest) -> str | None:
        """Why an episode can't be in the data set."""
        if self.size is None:
            return None
        own = self._of(manifest)
        if own.size is None:
            return WITHOUT_VIDEO
        return None if own == self and manifest.frames == manifest.episode_length else OTHER_VIDEO


class _Writer:
    def __init__(self, build: Build, place: Path, film: Film) -> None:
        self._build, self._place, self._film = build, place, film
        self._data = ParquetFiles(f"{place}/data/chunk-000/file-{{:03d}}.parquet")
        self._episodes = ParquetFiles(f"{place}/{_EPISODES}")
        rate = Fraction(film.fps).limit_denominator(1001)
        self._videos = JoinedVideos(f"{place}/videos/{RENDER}/chunk-000/file-{{:03d}}.mp4", rate, build.scratch)
        self._statistics, self._plain = LeRobotStatistics(), FeatureStatistics()
        self._card = Card.of(build, "LeRobot")
        self._tasks: dict[str, int] = {}
        self._features: dict[str, Feature] = {}
        self._steps = self._count = 0

    def add(self, columns: EpisodeColumns) -> None:
        """Adds an episode."""
        features = features_of(columns)
        self._features = self._features or {name: Feature(f.rows[:1], f.is_image) for name, f in features.items()}
        task = self._task_of(columns)
        own = indices(self._steps, self._count, len(columns), self._film.fps, self._tasks[task])
        rows = {name: feature.column() for name, feature in features.items()}
        file = self._data.add({**rows, **{name: pa.array(column) for name, column in own.items()}})
        place, pictures = self._add_video(columns)
        numbers = {name: f.rows for name, f in features.items() if not f.is_image and not is_text(f.rows)}
        numbers |= own
        seen = np.unique(np.linspace(0, len(columns) - 1, _PICTURES).round().astype(int))
        images = {name: f.rows[seen] for name, f in features.items() if f.is_image} | pictures
        statistics = self._statistics.add(numbers, images)
        self._plain.add({name: rows for name, rows in numbers.items() if name not in INDICES})
        self._episodes.add(self._episode_row(columns, task, file, place, statistics))
        self._card.add(columns)
        self._steps += len(columns)
        self._count += 1

    def _task_of(self, columns: EpisodeColumns) -> str:
        missions = columns.observations.get(_TASK)
        is_said = missions is not None and is_text(missions)
        task = storable_texts(missions[:1])[0] if is_said and missions is not None else ""
        task = task or self._build.job.source.record.env_id
        self._tasks.setdefault(task, len(self._tasks))
        return task

    def _add_video(self, columns: EpisodeColumns) -> tuple[Place | None, dict[str, NDArray[np.uint8]]]:
        if self._film.size is None:
            return None, {}
        artifacts, root = columns.episode.manifest.artifacts, self._build.source.root
        video = fetch_file(root, artifacts[ArtifactKind.RENDERS].path, self._build.scratch)
        thumbnail = artifacts.get(ArtifactKind.THUMBNAILS)
        file = fetch_file(root, thumbnail.path, self._build.scratch) if thumbnail else None
        picture = np.asarray(thumbnail_of(columns.episode.manifest, file, video))
        if file is not None and not root.is_local:
            file.unlink()
        return self._videos.add(video, len(columns)), {RENDER: picture[np.newaxis]}

    def _episode_row(
        self, columns: EpisodeColumns, task: str, file: int, place: Place | None, statistics: Mapping[str, Any]
    ) -> dict[str, pa.Array]:
        row: dict[str, Any] = {
            "episode_index": self._count,
            "tasks": [task],
            "length": len(columns),
            "data/chunk_index": 0,
            "data/file_index": file,
            "dataset_from_index": self._steps,
            "dataset_to_index": self._steps + len(columns),
        }
        if place is not None:
            fps, first = self._film.fps, place.first_frame
            row |= {
                f"videos/{RENDER}/chunk_index": 0,
                f"videos/{RENDER}/file_index": place.file,
                f"videos/{RENDER}/from_timestamp": first / fps,
                f"videos/{RENDER}/to_timestamp": (first + len(columns)) / fps,
            }
        for name, found in statistics.items():
            row |= {f"stats/{name}/{key}": value for key, value in found.items()}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": self._episodes.next_number}
        row |= {"rlhfblender/episode": columns.episode.number, "rlhfblender/seed": columns.episode.seed}
        kinds = {"rlhfblender/seed": pa.int64()}
        return {name: pa.array([value], kinds.get(name)) for name, value in row.items()}

    def close(self) -> None:
        """Writes what is left, and what the data set says of itself."""
        for files in (self._data, self._episodes, self._videos):
            files.close()
        meta = self._place / "meta"
        meta.mkdir(parents=True, exist_ok=True)
        _write_json(meta / "info.json", self._info())
        _write_json(meta / "stats.json", self._statistics.results(self._steps))
        _write_tasks(meta / "tasks.parquet", list(self._tasks))
        (self._place / "README.md").write_text(card_text(self._card, self._plain, _LOADING, _CONFIGS), encoding="utf-8")

    def _descriptions(self) -> dict[str, Any]:
        found = {name: feature.description() for name, feature in self._features.items()}
        if self._film.size is not None:
            found[RENDER] = _video_description(self._film.size, self._film.fps)
        return found | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDICES.items()}

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": self._count,
            "total_frames": self._steps,
            "total_tasks": len(self._tasks),
            "chunks_size": 1000,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": _whole(self._film.fps),
            "splits": {"train": f"0:{self._count}"},
            "data_path": _DATA,
            "video_path": None if self._film.size is None else _VIDEO,
            "features": self._descriptions(),
        }


def _video_description(size: tuple[int, int], fps: float) -> dict[str, Any]:
    info = {
        "video.height": size[0],
        "video.width": size[1],
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": _whole(fps),
        "video.channels": 3,
        "has_audio": False,
    }
    return {"dtype": "video", "shape": [*size, 3], "names": ["height", "width", "channels"], "info": info}


def _whole(fps: float) -> int | float:
    """An integer where it is one, which LeRobot expects."""
    return int(fps) if fps == int(fps) else fps


def _write_tasks(file: Path, tasks: list[str]) -> None:
    """As pandas writes a table whose index is the task, which is how LeRobot reads it."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    described = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": "task", "field_name": "task", "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [{**column, "metadata": None} for column in described],
    }
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), file)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=4), encoding="utf-8")


#: What README.md says to the Hub's viewer.
_CONFIGS = """configs:
- config_name: default
  data_files: data/*/*.parquet
"""
_LOADING = """```python
from lerobot.datasets.lerobot_dataset import LeRobotDataset

steps = LeRobotDataset("local/{place}", root="{place}")
```
"""
