"""The line above a clip's pictures: which checkpoint, the return, and how far the episode is."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rlhfblender_core.dataset.video import Frame
from rlhfblender_core.reading.episode import Episode

#: Pixels below which pictures are enlarged, by whole numbers, so that a line of text has room above them.
_LEAST_WIDTH = 320
_GROUND, _TEXT, _MUTED, _BAR = (17, 19, 21), (236, 238, 239), (154, 161, 167), (45, 212, 191)


def captioned(episode: Episode, frames: Iterator[Frame], length: int, size: tuple[int, int] | None) -> Iterator[Frame]:
    """The frames below a line of text, (height, width, 3) uint8 RGB.

    Args:
        episode: whose frames they are.
        frames: (height, width, 3) uint8 RGB.
        length: how many.
        size: height and width that the pictures have to have; None for what suits the frames.
    """
    line: Frame | None = None
    for step, frame in enumerate(frames):
        factor = max(1, -(-_LEAST_WIDTH // frame.shape[1]))
        width = size[1] if size else frame.shape[1] * factor
        if line is None:
            line = _line(episode, width)
        height = size[0] - line.shape[0] if size else frame.shape[0] * factor
        bar = line.copy()
        bar[-3:, : max(1, round(width * (step + 1) / length))] = _BAR
        yield np.vstack([bar, _resized(frame, height, width)])


def _resized(frame: Frame, height: int, width: int) -> Frame:
    if frame.shape[:2] == (height, width):
        return frame
    is_whole = width % frame.shape[1] == 0 and height % frame.shape[0] == 0
    way = Image.Resampling.NEAREST if is_whole else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(frame).resize((width, height), way))


def _line(episode: Episode, width: int) -> Frame:
    height = 2 * max(13, width // 36)
    picture = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(picture)
    left, right = _title(episode), f"return {episode.episode_return:,.6g}"
    size = height * 0.52
    while True:
        font = ImageFont.load_default(size)
        needed = draw.textlength(left, font) + draw.textlength(right, font) + 2.2 * size
        if needed <= width or size <= height * 0.3:
            break
        size *= 0.92
    margin, middle = 0.6 * size, (height - 3) / 2
    draw.text((margin, middle), left, _TEXT, font, anchor="lm")
    draw.text((width - margin, middle), right, _MUTED, font, anchor="rm")
    return np.asarray(picture)


def _title(episode: Episode) -> str:
    """The checkpoint's label, and its step where that isn't the label."""
    if episode.step is None:
        return episode.checkpoint
    step = f"step {episode.step:,}"
    return step if str(episode.step) == episode.checkpoint else f"{episode.checkpoint} · {step}"
