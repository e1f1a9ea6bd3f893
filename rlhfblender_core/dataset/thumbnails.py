"""The picture that stands for an episode."""

from pathlib import Path

import numpy as np
from PIL import Image

from rlhfblender_core.dataset.video import Frame, even, read_frames

#: Longest side of a thumbnail in pixels; smaller frames keep their size.
MAX_SIDE = 320


class ThumbnailPicker:
    """Keeps one frame from between the middle and the end of the episode, whatever its length turns out to be.

    First frames would all look alike: episode ``n`` of every checkpoint starts from the same state. The length isn't
    known while frames stream by, so the frame at the last power of two is kept.
    """

    def __init__(self) -> None:
        self.frame: Frame | None = None
        self._count = 0

    def offer(self, frame: Frame) -> None:
        """Looks at the next frame; it is copied if it is kept."""
        if self._count & (self._count - 1) == 0:
            self.frame = np.array(frame, order="C")
        self._count += 1


def write_thumbnail(path: Path, frame: Frame) -> None:
    """Writes the frame as an RGB PNG with no side longer than :data:`MAX_SIDE`."""
    image = Image.fromarray(frame)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BOX)
    image.save(path, format="PNG", compress_level=6)


def thumbnail_from_video(video: Path, target: Path, height: int, width: int) -> bool:
    """Writes a frame of the episode's second half; says whether there was one.

    Args:
        video: with even sides.
        target: where the picture goes.
        height: of the frames, as the environment rendered them.
        width: likewise.
    """
    picker = ThumbnailPicker()
    for frame in read_frames(video, even(height), even(width)):
        picker.offer(frame[:height, :width])
    if picker.frame is None:
        return False
    write_thumbnail(target, picker.frame)
    return True
