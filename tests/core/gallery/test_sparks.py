import base64
import io

import numpy as np
import pytest

from rlhfblender_core.gallery.sparks import spark


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def points(cumulative: list[float]) -> list[int]:
    return list(base64.b64decode(spark(npy(np.array(cumulative)), len(cumulative))))


def test_spark_is_the_growing_return_from_lowest_to_highest() -> None:
    assert points([0.0, 1.0, 2.0]) == [0, 128, 255]
    assert points([3.0, 3.0]) == [0, 0]
    assert len(points(list(range(1000)))) == 32


@pytest.mark.parametrize(
    "content",
    [None, b"", b"broken", npy(np.ones(4)), npy(np.ones((3, 1))), npy(np.array([{}, {}, {}])), npy(np.full(3, np.nan))],
)
def test_files_that_are_missing_broken_of_another_length_or_pickled_have_no_spark(content: bytes | None) -> None:
    assert spark(content, 3) == ""


def test_spark_of_numbers_at_the_ends_of_what_floats_hold() -> None:
    assert points([-1.7e308, 0.0, 1.7e308, np.nan]) == [0, 128, 255, 0]
    assert points([1e308, np.inf, -np.inf, 1.5e308]) == [0, 255, 0, 255]
    assert len(points([5e-324, 0.0, 5e-324])) == 3
