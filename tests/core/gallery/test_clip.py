"""Clips: what they show is what the videos show, in the order of training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlhfblender_core.dataset.video import count_frames, read_frames
from rlhfblender_core.errors import DataNotUsableError, RequestError
from rlhfblender_core.gallery.clip import ClipRequest, write_clip
from rlhfblender_core.locations import Locations, locate
from rlhfblender_core.storage import open_data_root
from tests.support.synthetic import FPS, HEIGHT, WIDTH, Synthetic

#: The synthetic pictures are enlarged to twice their size; above them is a line of text.
_WIDTH, _HEIGHT, _LINE = 2 * WIDTH, 2 * HEIGHT, 26


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for label, length in (("final", 20), ("20000", 30), ("random", 10), ("100000", 30)):
        Synthetic(folder, "A (b) = c", label, episodes=3, videos=2, mean_length=length).publish()
    Synthetic(folder, "Other", episodes=1, videos=0).publish()
    return folder


@pytest.fixture
def locations(data_root: Path, tmp_path: Path) -> Locations:
    return locate(str(data_root), state_folder=tmp_path / "state")


def bars(path: Path, count: int) -> list[float]:
    """How long the bar at the bottom of each picture is, from 0 to 1: how far the episode was."""
    pictures = list(read_frames(path, _LINE + _HEIGHT, _WIDTH))
    assert len(pictures) == count == count_frames(path)
    rows = [picture[-4].astype(int) for picture in pictures]
    return [float(((row[:, 0] - row[:, 2]) > 60).mean()) for row in rows]


def test_a_clip_over_the_training_shows_each_checkpoint_to_its_end(locations: Locations, tmp_path: Path) -> None:
    file = tmp_path / "training.mp4"
    said = write_clip(ClipRequest(str(file), ("A (b) = c",)), locations)
    assert said == f"{file}: episode 0 of A (b) = c at 4 checkpoints"
    hold = round(FPS / 2)
    lengths = [10, 30, 30, 20]  # random, 20000, 100000, final
    shown = bars(file, sum(lengths) + 4 * hold)
    expected = [[step / (length - 1) for step in range(length)] + [1.0] * hold for length in lengths]
    np.testing.assert_allclose(shown, np.concatenate(expected), atol=0.03)
    assert list(tmp_path.glob("*")) == [file]


def test_a_part_of_one_episode(locations: Locations, tmp_path: Path) -> None:
    file = tmp_path / "part.mp4"
    request = ClipRequest(str(file), ("A (b) = c",), ("100000",), 1, "5-14")
    assert "episode 1 of A (b) = c at 1 checkpoint, steps 5 to 14 of 30" in write_clip(request, locations)
    np.testing.assert_allclose(bars(file, 10), [step / 29 for step in range(5, 15)], atol=0.03)


def test_a_clip_of_a_data_set_that_isn_t_local_is_the_same(
    locations: Locations, data_root: Path, tmp_path: Path
) -> None:
    root = open_data_root(f"memory://{tmp_path.name}")
    for file in data_root.rglob("*"):
        if file.is_file():
            root.fs.pipe_file(root.full_path(str(file.relative_to(data_root))), file.read_bytes())
    remote = locate(root.url, state_folder=tmp_path / "state")
    clips = []
    for name, where in (("here.mp4", locations), ("there.mp4", remote)):
        write_clip(ClipRequest(str(tmp_path / name), ("A (b) = c",), ("random", "final"), steps="2-6"), where)
        clips.append((tmp_path / name).read_bytes())
    assert clips[0] == clips[1]


def test_a_gif_moves_and_repeats(locations: Locations, tmp_path: Path) -> None:
    file = tmp_path / "clip.GIF"
    file.write_bytes(b"an older one")
    write_clip(ClipRequest(str(file), ("A (b) = c",), ("20000",)), locations)
    with Image.open(file) as picture:
        assert (picture.format, picture.n_frames, picture.size) == ("GIF", 30, (_WIDTH, _LINE + _HEIGHT))
        assert picture.info["loop"] == 0
        disc = []
        for step in (0, 29):
            picture.seek(step)
            blue = np.asarray(picture.convert("RGB"))[_LINE:].astype(int)
            disc.append(float(np.argwhere((blue[..., 2] - blue[..., 0]) > 80)[:, 1].mean()))
        durations = sum(_duration(picture, step) for step in range(30))
    assert disc == pytest.approx([48, _WIDTH - 48], abs=4)
    assert durations == pytest.approx(1000, abs=60)  # milliseconds of 30 frames at 30 fps


def _duration(picture: Image.Image, step: int) -> int:
    picture.seek(step)
    return int(picture.info["duration"])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ClipRequest("clip.avi", ("A (b) = c",)), r"ends in \.gif or \.mp4"),
        (ClipRequest("s3://bucket/clip.gif", ("A (b) = c",)), "on this machine"),
        (ClipRequest("nowhere/clip.gif", ("A (b) = c",)), "there is no folder for it"),
        (ClipRequest("clip.gif"), r"one experiment.*A \(b\) = c, Other"),
        (ClipRequest("clip.gif", ("A (b) = c",), ("2000",)), "Did you mean '20000'"),
        (ClipRequest("clip.gif", ("A (b) = c",), episode=7), "no episode 7"),
        (ClipRequest("clip.gif", ("A (b) = c",), episode=2), "without a video"),
        (ClipRequest("clip.gif", ("A (b) = c",), ("random", "20000"), steps="12-20"), "has no step 12"),
        (ClipRequest("clip.gif", ("A (b) = c",), steps="20-12"), "first and the last"),
        (ClipRequest("clip.gif", ("Nothing",)), "no episodes of experiment 'Nothing'"),
    ],
)
def test_a_wrong_request_is_told_and_writes_nothing(
    request_: ClipRequest, message: str, locations: Locations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=message):
        write_clip(request_, locations)
    assert not list(tmp_path.glob("*.gif"))


def test_a_video_that_is_damaged_leaves_nothing_behind(tmp_path: Path) -> None:
    Synthetic(tmp_path / "data", episodes=1, videos=1).publish()
    next((tmp_path / "data").glob("renders/*/*/*.mp4")).write_bytes(b"no video")
    with pytest.raises(DataNotUsableError, match="0 frames instead of 60"):
        write_clip(ClipRequest(str(tmp_path / "clip.gif")), locate(str(tmp_path / "data"), state_folder=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_thirty_of_many_checkpoints_in_forty_seconds(tmp_path: Path) -> None:
    for index in range(40):
        Synthetic(tmp_path / "data", checkpoint=str(1000 * index), episodes=1, videos=1, mean_length=45).publish()
    said = write_clip(ClipRequest(str(tmp_path / "c.mp4")), locate(str(tmp_path / "data"), state_folder=tmp_path))
    assert "at 30 checkpoints, steps 0 to 39 of 45" in said
