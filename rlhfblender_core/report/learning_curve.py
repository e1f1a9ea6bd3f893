"""A picture of how a training goes: mean episode return above, loss below, by steps."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from rlhfblender_core.report.charts import round_axis

_SIZE, _PANEL = (820, 420), 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 800, 30, 26
_BACKGROUND, _INK, _FAINT, _COLOURS = "#ffffff", "#1f2933", "#cbd2d9", ("#2f6fde", "#b4531c")
_TEXT = 13
#: Values from here on, infinities, and what is no number have no place in a picture.
_MOST = 1e300

#: Steps and a value; the value may be missing.
Series = Sequence[tuple[int, float | None]]


def draw_learning_curve(returns: Series, losses: Series, total: int) -> bytes:
    """The two curves as PNG.

    Args:
        returns: mean episode return by steps.
        losses: loss by steps.
        total: steps of the whole training, at the right edge.
    """
    image = Image.new("RGB", _SIZE, _BACKGROUND)
    draw = ImageDraw.Draw(image)
    for panel, (title, series) in enumerate((("Mean episode return", returns), ("Loss", losses))):
        points = [(step, value) for step, value in series if value is not None and abs(value) < _MOST]
        _draw_panel(draw, panel, title, points, max(total, 1))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _draw_panel(
    draw: ImageDraw.ImageDraw, panel: int, title: str, points: Sequence[tuple[int, float]], total: int
) -> None:
    top, bottom = panel * _PANEL + _TOP, (panel + 1) * _PANEL - _BOTTOM + _TOP // 2
    low = min((value for _, value in points), default=0.0)
    high = max((value for _, value in points), default=1.0)
    low, high, line = round_axis(low, high)

    def height(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    font = ImageFont.load_default(_TEXT)
    draw.text((_LEFT, top - 20), title, _INK, font)
    for number in range(round((high - low) / line) + 1):
        value = low + number * line
        draw.line((_LEFT, height(value), _RIGHT, height(value)), _FAINT)
        draw.text((_LEFT - 8, height(value)), f"{value:,.6g}", _INK, font, anchor="rm")
    places = [(_LEFT + step / total * (_RIGHT - _LEFT), height(value)) for step, value in points]
    if len(places) > 1:
        draw.line(places, _COLOURS[panel], width=2)
    draw.text((_LEFT, bottom + 4), "0", _INK, font)
    draw.text((_RIGHT, bottom + 4), f"{total:,} steps", _INK, font, anchor="ra")
