"""The picture that stands for an episode: its thumbnail."""

import contextlib
from pathlib import Path

from PIL import Image

from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.video import even, read_frames
from rlhfblender_core.untrusted.pictures import PHOTOS, open_picture


def thumbnail_of(manifest: Manifest, file: Path | None, video: Path) -> Image.Image:
    """The thumbnail as RGB; the video's first frame where an imported episode has none.

    Args:
        manifest: the episode's.
        file: its thumbnail.
        video: its video.
    """
    if file is not None:
        with open_picture(file, file.name, PHOTOS) as picture:
            return picture.convert("RGB")
    height, width = even(manifest.frame_height or 0), even(manifest.frame_width or 0)
    frames = read_frames(video, height, width) if height and width else iter(())
    frame = next(frames, None)
    with contextlib.suppress(AttributeError):
        frames.close()  # type: ignore[attr-defined]  # ends the decoder
    return Image.new("RGB", (64, 64), "#808080") if frame is None else Image.fromarray(frame)
