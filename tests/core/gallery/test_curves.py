import base64
import io

import numpy as np

from rlhfblender_core.gallery.curves import MAX_POINTS, EpisodeCurves, read_curves, spark


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f4")


def test_rewards_are_read_per_step_from_the_cumulative_file() -> None:
    curves = read_curves({"r": npy(np.cumsum([1.0, -2.0, 0.5])), "u": npy(np.float32([1, 2, 3]))}, "r", "u", 3)
    rewards, uncertainty, stride = curves.to_json()
    assert unpacked(rewards).tolist() == [1.0, -2.0, 0.5]
    assert unpacked(uncertainty).tolist() == [1.0, 2.0, 3.0]
    assert stride == 1


def test_files_that_are_missing_broken_or_of_another_length_are_no_curves() -> None:
    for files in ({}, {"r": b"broken", "u": b""}, {"r": npy(np.ones(4)), "u": npy(np.ones((3, 1)))}):
        assert read_curves(files, "r", "u", 3) == EpisodeCurves(None, None)


def test_pickles_are_not_read() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{}, {}, {}]), allow_pickle=True)
    assert read_curves({"r": stream.getvalue()}, "r", "u", 3).rewards is None


def test_uncertainty_of_nothing_but_nan_is_no_curve() -> None:
    assert read_curves({"u": npy(np.full(3, np.nan))}, "r", "u", 3).uncertainty is None


def test_long_episodes_keep_their_peaks() -> None:
    rewards = np.zeros(3 * MAX_POINTS + 1)
    rewards[[5, -1]] = [-7.0, 3.0]
    packed, _, stride = EpisodeCurves(rewards, None).to_json()
    points = unpacked(packed)
    assert stride == 4
    assert len(points) <= MAX_POINTS
    assert points[5 // 4] == -7.0
    assert points[-1] == 3.0


def test_spark_is_the_growing_return_from_lowest_to_highest() -> None:
    assert base64.b64decode(spark(np.array([0.0, 1.0, 1.0]))) == bytes([0, 128, 255])
    assert base64.b64decode(spark(np.zeros(2))) == bytes([0, 0])
    assert spark(None) == ""


def test_spark_of_numbers_at_the_ends_of_what_floats_hold() -> None:
    assert base64.b64decode(spark(np.array([-1.7e308, 1.7e308, 1.7e308, np.nan]))) == bytes([0, 128, 255, 255])
    assert base64.b64decode(spark(np.full(3, 1e308))) == bytes([0, 255, 255])
    assert len(base64.b64decode(spark(np.array([5e-324, 0.0, 5e-324])))) == 3
