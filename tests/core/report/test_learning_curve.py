"""The picture of a training: round numbers at its lines, whatever the values are."""

import io
import math

import pytest
from PIL import Image

from rlhfblender_core.report.charts import round_axis
from rlhfblender_core.report.learning_curve import Series, draw_learning_curve


@pytest.mark.parametrize(
    ("low", "high", "axis"),
    [(22.0, 92.91, (20.0, 100.0, 20.0)), (-0.01145, 43.85, (-10.0, 50.0, 10.0)), (500.0, 500.0, (500.0, 600.0, 100.0))],
)
def test_an_axis_has_round_numbers(low: float, high: float, axis: tuple[float, float, float]) -> None:
    assert round_axis(low, high) == pytest.approx(axis)


@pytest.mark.parametrize(
    "series",
    [[], [(0, None)], [(5, 1.0)], [(0, math.nan), (1, math.inf)], [(0, -1e308), (1, 1e308)], [(0, -1e299), (1, 1e299)]],
)
def test_any_values_make_a_picture(series: Series) -> None:
    assert Image.open(io.BytesIO(draw_learning_curve(series, series, 10)), formats=["PNG"]).size == (820, 420)
