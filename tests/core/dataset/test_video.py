from pathlib import Path

import numpy as np
import pytest

from rlhfblender_core.dataset.video import Frame, VideoError, VideoWriter, count_frames, even, read_frames
from rlhfblender_core.errors import DataNotUsableError


def grey(value: int, height: int, width: int) -> Frame:
    return np.full((height, width, 3), value, np.uint8)


def write(path: Path, frames: list[Frame], fps: float = 30) -> None:
    writer = VideoWriter(path, *frames[0].shape[:2], fps)
    for frame in frames:
        writer.write(frame)
    writer.close()
    assert writer.frames == len(frames)


@pytest.mark.parametrize("frames", [1, 2, 61, 130])
@pytest.mark.parametrize("fps", [0.0001, 1, 29.97, 30, 1000])
def test_a_video_has_as_many_frames_as_were_written(frames: int, fps: float, tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", [grey(i, 32, 32) for i in range(frames)], fps)
    assert count_frames(tmp_path / "v.mp4") == frames


@pytest.mark.parametrize(("height", "width"), [(33, 47), (4, 6), (210, 160), (2, 999)])
def test_frames_come_back_in_order_whatever_their_size(height: int, width: int, tmp_path: Path) -> None:
    values = [0, 60, 120, 180, 250]
    write(tmp_path / "v.mp4", [grey(value, height, width) for value in values])
    found = [frame[:height, :width] for frame in read_frames(tmp_path / "v.mp4", even(height), even(width))]
    assert [round(float(frame.mean())) for frame in found] == pytest.approx(values, abs=5)


def test_a_picture_of_one_pixel_is_a_video_too(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", [grey(value, 1, 1) for value in (0, 250)])
    assert count_frames(tmp_path / "v.mp4") == 2


def test_colours_are_those_of_the_frames(tmp_path: Path) -> None:
    frame = grey(0, 64, 64)
    frame[:, :32] = (200, 30, 60)
    frame[:, 32:] = (20, 180, 90)
    write(tmp_path / "v.mp4", [frame])
    found = next(read_frames(tmp_path / "v.mp4", 64, 64))
    np.testing.assert_allclose(found[32, 8], (200, 30, 60), atol=8)
    np.testing.assert_allclose(found[32, 56], (20, 180, 90), atol=8)


def test_a_browser_can_start_before_the_whole_file_is_there(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", [grey(i, 32, 32) for i in range(5)])
    content = (tmp_path / "v.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write(tmp_path / name, [grey(i, 40, 40) for i in range(70)])
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_frames_that_lie_transposed_in_memory_are_written_right(tmp_path: Path) -> None:
    frame = np.zeros((64, 32, 3), np.uint8)
    frame[:16] = 250
    write(tmp_path / "v.mp4", [np.asfortranarray(frame)])
    found = next(read_frames(tmp_path / "v.mp4", 64, 32))
    assert found[:12].min() > 230
    assert found[20:].max() < 20


@pytest.mark.parametrize("other", [grey(0, 32, 34), np.zeros((32, 32), np.uint8), np.zeros((32, 32, 3), np.float64)])
def test_a_frame_of_another_size_or_dtype_is_refused(other: Frame, tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "v.mp4", 32, 32, 30)
    writer.write(grey(0, 32, 32))
    with pytest.raises(ValueError, match=r"\(32, 32, 3\)"):
        writer.write(other)
    writer.abort()


def test_a_file_that_cant_be_written_is_an_error_not_a_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="No such file"):
        write(tmp_path / "no-such-folder" / "v.mp4", [grey(0, 32, 32)] * 2000)


@pytest.mark.parametrize("keep", [0, 0.5, 0.95])
def test_a_video_that_is_cut_off_doesnt_count(keep: float, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8)
    write(path, list(noise))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataNotUsableError, match=r"v\.mp4"):
        count_frames(path)


def test_whoever_wants_no_more_frames_isnt_told_of_a_broken_pipe(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "v.mp4", [grey(i % 250, 200, 300) for i in range(300)])
    frames = read_frames(tmp_path / "v.mp4", 200, 300)
    next(frames)
    frames.close()
    assert capfd.readouterr() == ("", "")
