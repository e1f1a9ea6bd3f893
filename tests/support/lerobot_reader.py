"""Reads a data set of LeRobot's format v3 as LeRobot 0.4 does, and is stricter: every file and field that it knows.

LeRobot itself pins versions of torch, ``datasets`` and ``huggingface_hub`` that don't go with ours: the soak test reads
with it in a virtual environment of its own. This reader follows ``lerobot.datasets.lerobot_dataset`` and
``lerobot.datasets.utils`` of 0.4.4: features from ``meta/info.json``, rows by ``datasets.Dataset.from_parquet`` with
those features, a frame at the episode's ``from_timestamp`` plus the row's ``timestamp``, within 0.1 ms.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq

from rlhfblender_core.dataset.video import ffmpeg_program, frame_times, read_frames

_INFO_KEYS = {
    *("codebase_version", "robot_type", "total_episodes", "total_frames", "total_tasks", "chunks_size", "fps"),
    *("data_files_size_in_mb", "video_files_size_in_mb", "splits", "data_path", "video_path", "features"),
}
_DEFAULT_FEATURES = {
    **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64"),
    "timestamp": "float32",
}
_STATISTICS = {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
_TOLERANCE_S = 1e-4
_ARRAYS = {2: datasets.Array2D, 3: datasets.Array3D, 4: datasets.Array4D, 5: datasets.Array5D}


def hf_feature(feature: dict[str, Any]) -> Any:
    """LeRobot's ``get_hf_features_from_features``."""
    shape = tuple(feature["shape"])
    if feature["dtype"] == "image":
        return datasets.Image()
    if shape == (1,):
        return datasets.Value(feature["dtype"])
    if len(shape) == 1:
        return datasets.Sequence(datasets.Value(feature["dtype"]), length=shape[0])
    return _ARRAYS[len(shape)](shape=shape, dtype=feature["dtype"])


@dataclass
class LeRobotFolder:
    """A data set, checked when it is read.

    Attributes:
        root: its folder.
        cache: where ``datasets`` may keep what it makes of the files.
    """

    root: Path
    cache: Path

    @cached_property
    def info(self) -> dict[str, Any]:
        info = json.loads((self.root / "meta/info.json").read_text())
        assert set(info) == _INFO_KEYS
        assert info["codebase_version"] == "v3.0"
        assert info["splits"] == {"train": f"0:{info['total_episodes']}"}
        assert all("/" not in name for name in info["features"])
        assert {name: info["features"][name]["dtype"] for name in _DEFAULT_FEATURES} == _DEFAULT_FEATURES
        return info

    @cached_property
    def rows(self) -> Any:
        """The steps, a row each."""
        features = {name: hf_feature(f) for name, f in self.info["features"].items() if f["dtype"] != "video"}
        files = sorted(map(str, (self.root / "data").glob("*/*.parquet")))
        assert files[0].endswith("data/chunk-000/file-000.parquet")
        read = datasets.Dataset.from_parquet(files, features=datasets.Features(features), cache_dir=str(self.cache))
        assert len(read) == self.info["total_frames"]
        return read

    @cached_property
    def episodes(self) -> list[dict[str, Any]]:
        table = pq.read_table(self.root / "meta/episodes").to_pylist()
        assert [row["episode_index"] for row in table] == list(range(self.info["total_episodes"]))
        start = 0
        for row in table:
            assert (row["dataset_from_index"], row["dataset_to_index"]) == (start, start + row["length"])
            start = row["dataset_to_index"]
            assert {key for key in row if key.startswith("meta/")} == {
                "meta/episodes/chunk_index",
                "meta/episodes/file_index",
            }
            places = [key.removesuffix("/file_index") for key in row if key.endswith("/file_index")]
            assert {"data", "meta/episodes", *(f"videos/{name}" for name in self.video_keys)} == set(places)
            assert (
                self.root / self.info["data_path"].format(chunk_index=0, file_index=row["data/file_index"])
            ).exists()
        return table

    @property
    def video_keys(self) -> list[str]:
        return [name for name, feature in self.info["features"].items() if feature["dtype"] == "video"]

    @cached_property
    def tasks(self) -> list[str]:
        """As pandas reads them: the index, in the order of ``task_index``."""
        import pandas as pd

        table = pd.read_parquet(self.root / "meta/tasks.parquet")
        assert list(table.columns) == ["task_index"]
        assert table["task_index"].tolist() == list(range(len(table))) == list(range(self.info["total_tasks"]))
        return [str(table.iloc[index].name) for index in range(len(table))]

    @cached_property
    def stats(self) -> dict[str, dict[str, Any]]:
        stats = {
            name: {key: np.array(value) for key, value in found.items()}
            for name, found in json.loads((self.root / "meta/stats.json").read_text()).items()
        }
        for name, found in stats.items():
            assert set(found) == _STATISTICS
            assert found["count"].shape == (1,)
            is_picture = self.info["features"][name]["dtype"] in ("image", "video")
            assert all(value.shape == (3, 1, 1) for key, value in found.items() if is_picture and key != "count")
            assert all(value.ndim >= 1 for value in found.values())
        texts = {name for name, feature in self.info["features"].items() if feature["dtype"] == "string"}
        assert set(stats) == set(self.info["features"]) - texts
        return stats

    def frames(self, episode: int, key: str) -> list[Any]:
        """The frame of each step: the one shown at its time, which no other is nearer to than LeRobot tolerates."""
        row = self.episodes[episode]
        path = self.info["video_path"].format(
            video_key=key, chunk_index=row[f"videos/{key}/chunk_index"], file_index=row[f"videos/{key}/file_index"]
        )
        height, width, _ = self.info["features"][key]["shape"]
        shown = np.array(frame_times(self.root / path)) * seconds_per_tick(self.root / path)
        decoded = list(read_frames(self.root / path, height, width))
        times = self.rows["timestamp"][row["dataset_from_index"] : row["dataset_to_index"]]
        frames = []
        for time in times:
            distances = np.abs(shown - (row[f"videos/{key}/from_timestamp"] + time))
            nearest = int(distances.argmin())
            assert distances[nearest] < _TOLERANCE_S
            frames.append(decoded[nearest])
        return frames


def seconds_per_tick(file: Path) -> float:
    """Unit of the times of a video's frames."""
    import subprocess

    command = [ffmpeg_program(), "-v", "error", "-i", str(file), "-c", "copy", "-f", "framecrc", "-frames:v", "1", "-"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    above, below = next(line for line in lines if line.startswith("#tb")).partition(": ")[2].split("/")
    return int(above) / int(below)
