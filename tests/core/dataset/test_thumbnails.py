from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlhfblender_core.dataset.thumbnails import MAX_SIDE, ThumbnailPicker, write_thumbnail


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 100, 500, 512, 513])
def test_the_frame_picked_is_from_the_second_half_of_the_episode(length: int) -> None:
    picker = ThumbnailPicker()
    frame = np.zeros((2, 2, 3), np.uint16)
    for t in range(length):
        frame[:] = t  # the same array again, as some environments do
        picker.offer(frame)  # type: ignore[arg-type]
    assert picker.frame is not None
    assert (length - 1) / 2 <= picker.frame[0, 0, 0] <= length - 1


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(400, 600, (320, 213)), (10, 20, (20, 10)), (1, 1, (1, 1)), (3, 5000, (320, 1)), (320, 320, (320, 320))],
)
def test_a_thumbnail_is_a_png_of_at_most_320_pixels(
    height: int, width: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    write_thumbnail(tmp_path / "t.png", np.full((height, width, 3), (10, 200, 30), np.uint8))
    with Image.open(tmp_path / "t.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", expected)
        assert max(image.size) <= MAX_SIDE
        assert image.getpixel((0, 0)) == (10, 200, 30)
