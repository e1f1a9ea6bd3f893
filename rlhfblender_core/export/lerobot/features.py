"""An episode's arrays as LeRobot's features, and how those are stored.

The shape ``(1,)`` stands for a number per step. Pictures of uint8 with three channels are images (PNG, as they are);
other arrays keep their dtype and shape.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from rlhfblender_core.export.columns import EpisodeColumns, is_text
from rlhfblender_core.export.parquet import arrow_lists, arrow_rows

#: Feature of the episodes' videos.
RENDER = "observation.images.render"
#: What every data set of LeRobot has, after the others.
INDICES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
_COLOURS = 3
#: Of a row of a picture: height, width, channels.
_PICTURE_AXES = 3


@dataclass(frozen=True)
class Feature:
    """A feature's rows.

    Attributes:
        rows: (T, …).
        is_image: whether each row is a picture.
    """

    rows: NDArray[Any]
    is_image: bool = False

    def description(self) -> dict[str, Any]:
        """As ``info.json`` has it."""
        if self.is_image:
            return {"dtype": "image", "shape": list(self.rows.shape[1:]), "names": ["height", "width", "channels"]}
        dtype = "string" if is_text(self.rows) else self.rows.dtype.name
        return {"dtype": dtype, "shape": list(self.rows.shape[1:]) or [1], "names": None}

    def column(self) -> pa.Array:
        """As the parquet files have it."""
        if self.is_image:
            files = [{"bytes": _png(picture), "path": None} for picture in self.rows]
            return pa.array(files, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        if self.rows.shape[1:] == (1,):
            return arrow_rows(self.rows[:, 0])
        return arrow_lists(self.rows) if self.rows.ndim > 2 else arrow_rows(self.rows)  # noqa: PLR2004 (rows of vectors)


def _png(picture: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def features_of(columns: EpisodeColumns) -> dict[str, Feature]:
    """An episode's features by LeRobot's names; what it has no name for is below ``policy`` and ``next``."""
    found = dict(_observed(name, rows) for name, rows in columns.observations.items())
    found["action"] = Feature(columns.actions)
    found["next.reward"] = Feature(columns.rewards)
    found["next.done"] = Feature(columns.terminated | columns.truncated)
    found["next.terminated"] = Feature(columns.terminated)
    found["next.truncated"] = Feature(columns.truncated)
    found["next.info"] = Feature(columns.infos)
    found |= {f"policy.{name}": Feature(rows) for name, rows in columns.policy.items()}
    return found


def _observed(name: str, rows: NDArray[Any]) -> tuple[str, Feature]:
    plain = name.replace("/", "%2F")
    is_image = rows.dtype == np.uint8 and rows.ndim == 1 + _PICTURE_AXES and rows.shape[-1] == _COLOURS
    if is_image:
        return f"observation.images.{plain or 'obs'}", Feature(rows, is_image=True)
    return f"observation.{plain or 'state'}", Feature(rows)


def indices(start: int, episode: int, length: int, fps: float, task: int) -> Mapping[str, NDArray[Any]]:
    """LeRobot's own columns of an episode's rows."""
    frames = np.arange(length)
    columns = (frames / fps, frames, np.full(length, episode), start + frames, np.full(length, task))
    return {name: column.astype(dtype) for (name, dtype), column in zip(INDICES.items(), columns, strict=True)}
