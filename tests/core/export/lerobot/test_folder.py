"""The export to LeRobot's format v3, read by a strict reader of the format; by LeRobot itself in the soak tests."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core.dataset.video import read_frames
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.export.lerobot.features import RENDER
from rlhfblender_core.export.lerobot.folder import OTHER_VIDEO, Film
from tests.support.exporting import DataSet

pytest.importorskip("datasets")
pytest.importorskip("pyarrow")

from tests.support.lerobot_reader import LeRobotFolder

PENDULUM = "Pendulum-v1_random_experiment"
PLACES = {
    ("trained_cartpole", "128"): "CartPole-v1/trained_cartpole/128",
    (PENDULUM, "random"): f"Pendulum-v1/{PENDULUM}/random",
    ("pong", "random"): "ALE-Pong-v5/pong/random",
    ("structured", "random"): "Struc_tured-v0/structured/random",
}


@pytest.fixture(scope="module")
def exported(mixed_data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lerobot")
    mixed_data.export(out, to="lerobot")
    return out


def name_of(ours: str) -> str:
    """LeRobot's name of one of our arrays."""
    known = {"actions": "action", "rewards": "next.reward", "infos": "next.info", "obs": "observation.state"}
    known |= {name: f"next.{name}" for name in ("terminated", "truncated")} | {"dones": "next.done"}
    return known.get(ours) or (ours.replace("obs", "observation", 1) if ours.startswith("obs") else f"policy.{ours}")


@pytest.mark.parametrize("key", PLACES)
def test_every_array_is_ours(exported: Path, mixed_data: DataSet, tmp_path: Path, key: tuple[str, str]) -> None:
    folder = LeRobotFolder(exported / PLACES[key], tmp_path)
    assert folder.stats
    for number, episode in enumerate(folder.episodes):
        own = mixed_data.arrays(*key, number)
        length = len(own["rewards"])
        part = folder.rows[episode["dataset_from_index"] : episode["dataset_to_index"]]
        assert episode["length"] == length
        assert episode["rlhfblender/episode"] == number
        assert episode["rlhfblender/seed"] == own["seed"]
        np.testing.assert_array_equal(part["frame_index"], np.arange(length))
        np.testing.assert_array_equal(part["episode_index"], np.full(length, number))
        np.testing.assert_allclose(part["timestamp"], np.arange(length) / folder.info["fps"], rtol=1e-6)
        for ours, expected in own.items():
            is_row = not ours.startswith(("final_", "episode_", "seed"))
            if not is_row or (ours == "uncertainty" and np.isnan(expected).all()):
                continue
            theirs = name_of(ours)
            if key[0] == "pong" and ours == "obs":
                theirs = "observation.images.obs"
            found = np.array([np.asarray(row) for row in part[theirs]]).reshape(expected.shape)
            np.testing.assert_array_equal(found, expected)
            dtype = folder.info["features"][theirs]["dtype"]
            assert dtype in ({"U": "string"}.get(expected.dtype.kind), expected.dtype.name, "image")
    assert len(folder.episodes) == 2


@pytest.mark.parametrize("key", PLACES)
def test_the_frame_of_each_step_is_the_one_of_our_video(
    exported: Path, mixed_data: DataSet, tmp_path: Path, key: tuple[str, str]
) -> None:
    folder = LeRobotFolder(exported / PLACES[key], tmp_path)
    height, width, _ = folder.info["features"][RENDER]["shape"]
    for number in (0, 1):
        video = Path(mixed_data.root.full_path(f"renders/{key[0]}/{key[1]}/{number}.mp4"))
        ours = list(read_frames(video, height, width))
        theirs = folder.frames(number, RENDER)
        assert len(ours) == len(theirs) == len(mixed_data.arrays(*key, number)["rewards"])
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_statistics_are_those_of_all_rows(exported: Path, mixed_data: DataSet, tmp_path: Path) -> None:
    stats = LeRobotFolder(exported / PLACES[PENDULUM, "random"], tmp_path).stats
    rows = np.concatenate([mixed_data.arrays(PENDULUM, "random", number)["obs"] for number in (0, 1)]).astype(float)
    found = stats["observation.state"]
    for name, expected in {"mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0)}.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-12)
    assert found["count"] == [24]
    assert (found["min"] <= found["q01"]).all()
    assert (found["q10"] <= found["q50"]).all()
    assert (found["q99"] <= found["max"]).all()


def test_statistics_of_observed_pictures_are_of_pictures_of_the_whole_episode(
    exported: Path, mixed_data: DataSet, tmp_path: Path
) -> None:
    found = LeRobotFolder(exported / PLACES["pong", "random"], tmp_path).stats["observation.images.obs"]
    pictures = np.concatenate([mixed_data.arrays("pong", "random", number)["obs"] for number in (0, 1)]) / 255
    assert found["count"] == [24]  # of short episodes all
    np.testing.assert_allclose(np.ravel(found["mean"]), pictures.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(np.ravel(found["max"]), pictures.max(axis=(0, 1, 2)))


def test_a_mission_is_the_task(exported: Path, tmp_path: Path) -> None:
    assert LeRobotFolder(exported / PLACES["structured", "random"], tmp_path).tasks == ["go 0"]
    assert LeRobotFolder(exported / PLACES["pong", "random"], tmp_path).tasks == ["ALE/Pong-v5"]


def test_without_videos_there_are_none(data: DataSet, out: Path, tmp_path: Path) -> None:
    data.counting(no_render=True)
    (report,) = data.export(out, to="lerobot")
    folder = LeRobotFolder(out / report.place, tmp_path / "cache")
    assert (folder.video_keys, folder.info["video_path"], len(folder.rows)) == ([], None, 10)
    assert len(folder.episodes) == 2


def test_episodes_with_other_videos_are_left_out(
    data: DataSet, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.counting(episodes=3)
    real = Film.of

    def first_of_another_size(build: Any) -> Film:
        return replace(real(build), size=(2, 2))

    monkeypatch.setattr(Film, "of", first_of_another_size)
    (report,) = data.export(out, to="lerobot")
    assert (report.made, report.left_out) == (0, {OTHER_VIDEO: 3})


def test_a_video_that_has_other_frames_than_steps_is_told(data: DataSet, out: Path) -> None:
    data.counting(episodes=2)
    data.counting("short", max_steps_per_episode=3, episodes=1)
    renders = Path(data.root.full_path("renders"))
    other = (renders / "short/random/0.mp4").read_bytes()
    place = renders / "E/random/1.mp4"
    place.write_bytes(other + bytes(place.stat().st_size - len(other)))  # the size is as recorded
    with pytest.raises(DataNotUsableError, match=r"8 frames.*instead of 10.*verify"):
        data.export(out, ["E"], to="lerobot")


def test_a_playlist_in_a_videos_place_is_not_followed(data: DataSet, out: Path, tmp_path: Path) -> None:
    data.counting(episodes=1)
    place = Path(data.root.full_path("renders/E/random/0.mp4"))
    secret = tmp_path / "secret.ts"
    secret.write_bytes(place.read_bytes())
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n".encode()
    place.write_bytes(playlist.ljust(place.stat().st_size, b"\n"))
    with pytest.raises(DataNotUsableError, match="no MP4"):
        data.export(out, to="lerobot")


@pytest.mark.parametrize("fps", [15, 30, 60])
def test_many_videos_stay_in_step(tmp_path: Path, fps: int) -> None:
    from fractions import Fraction

    from rlhfblender_core.dataset.video import VideoWriter
    from rlhfblender_core.export.lerobot.videos import JoinedVideos

    def video(number: int, frames: int) -> Any:
        writer = VideoWriter(tmp_path / f"{number}.mp4", 16, 16, fps)
        for frame in range(frames):
            writer.write(np.full((16, 16, 3), 20 + frame, np.uint8))
        writer.close()
        return tmp_path / f"{number}.mp4"

    videos = [video(number, 1 + number % 3) for number in range(6)]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    joined = JoinedVideos(str(tmp_path / "joined-{}.mp4"), Fraction(fps), scratch)
    places = [joined.add(videos[number % 6], 1 + number % 3) for number in range(300)]
    joined.close()  # which refuses a frame that isn't where it should be
    assert places[-1].first_frame == 600 - 3
    assert len(list(read_frames(tmp_path / "joined-0.mp4", 16, 16))) == 600
