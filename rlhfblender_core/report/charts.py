"""Pictures of what a run made: a contact sheet of thumbnails, a plot of the return per checkpoint."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from rlhfblender_core.untrusted.pictures import PNG, open_picture

#: Longest side of a picture on the sheet, in pixels.
_CELL = 132
_GAP, _LABEL_HEIGHT = 6, 24
_BACKGROUND, _INK, _FAINT, _ACCENT = "#ffffff", "#1f2933", "#cbd2d9", "#2f6fde"

_PLOT_SIZE = (820, 320)
#: Left, top, right, bottom of the plot's frame, from the picture's edges.
_MARGINS = (78, 34, 20, 46)
_MAX_X_LABELS = 12
_GRID_LINES = 5
_BOLD_SIZE, _TEXT_SIZE = 15, 13


@dataclass(frozen=True)
class CheckpointReturn:
    """One point of the plot.

    Attributes:
        checkpoint: its label.
        mean, std: of the episodes' returns.
    """

    checkpoint: str
    mean: float
    std: float


def draw_contact_sheet(rows: Mapping[str, Sequence[bytes]]) -> bytes | None:
    """The thumbnails in one JPEG, a line of them below each checkpoint's label.

    Args:
        rows: encoded thumbnails by label.

    Returns:
        None where there is no thumbnail.
    """
    pictures = {label: [_cell(content) for content in contents] for label, contents in rows.items() if contents}
    if not pictures:
        return None
    heights = {label: max(picture.height for picture in row) for label, row in pictures.items()}
    longest = max(sum(picture.width + _GAP for picture in row) for row in pictures.values())
    size = longest + _GAP, sum(_LABEL_HEIGHT + height + _GAP for height in heights.values()) + _GAP
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for label, row in pictures.items():
        draw.text((_GAP, top), label, _INK, _font(_BOLD_SIZE))
        left, top = _GAP, top + _LABEL_HEIGHT
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + _GAP
        top += heights[label] + _GAP
    return _encoded(sheet, "JPEG")


def draw_returns(points: Sequence[CheckpointReturn], title: str) -> bytes | None:
    """A plot of mean return ± one standard deviation, one point per checkpoint, as PNG.

    Args:
        points: in the order they are drawn; those whose mean isn't finite are left out.
        title: written above.

    Returns:
        None where there is no point.
    """
    points = [point for point in points if math.isfinite(point.mean)]
    if not points:
        return None
    image = Image.new("RGB", _PLOT_SIZE, _BACKGROUND)
    plot = _Plot(ImageDraw.Draw(image), points)
    plot.draw.text((_MARGINS[0], 8), title, _INK, _font(_BOLD_SIZE))
    plot.draw_grid()
    plot.draw_points()
    return _encoded(image, "PNG")


class _Plot:
    """The plot's scales, and what is drawn by them."""

    def __init__(self, draw: ImageDraw.ImageDraw, points: Sequence[CheckpointReturn]) -> None:
        self.draw = draw
        self._points = points
        left, top, right, bottom = _MARGINS
        self._left, self._right = left, _PLOT_SIZE[0] - right
        self._top, self._bottom = top, _PLOT_SIZE[1] - bottom
        low = min(point.mean - _finite(point.std) for point in points)
        high = max(point.mean + _finite(point.std) for point in points)
        self._low, self._high, self._step = round_axis(low, high)

    def _x(self, index: int) -> float:
        return self._left + (index + 0.5) * (self._right - self._left) / len(self._points)

    def _y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return self._bottom - share * (self._bottom - self._top)

    def draw_grid(self) -> None:
        for line in range(round((self._high - self._low) / self._step) + 1):
            value = self._low + line * self._step
            y = self._y(value)
            self.draw.line((self._left, y, self._right, y), _FAINT)
            self.draw.text((self._left - 8, y), f"{value:,.6g}", _INK, _font(_TEXT_SIZE), anchor="rm")
        every = math.ceil(len(self._points) / _MAX_X_LABELS)
        for index in range(0, len(self._points), every):
            label = self._points[index].checkpoint
            text = label if len(label) <= _MAX_X_LABELS else f"{label[: _MAX_X_LABELS - 1]}…"
            self.draw.text((self._x(index), self._bottom + 8), text, _INK, _font(_TEXT_SIZE), anchor="ma")

    def draw_points(self) -> None:
        locations = [(self._x(index), self._y(point.mean)) for index, point in enumerate(self._points)]
        self.draw.line(locations, _ACCENT, width=2)
        for (x, y), point in zip(locations, self._points, strict=True):
            std = _finite(point.std)
            top, bottom = self._y(point.mean + std), self._y(point.mean - std)
            self.draw.line((x, top, x, bottom), _ACCENT)
            for end in (top, bottom):
                self.draw.line((x - 4, end, x + 4, end), _ACCENT)
            self.draw.ellipse((x - 4, y - 4, x + 4, y + 4), _ACCENT)


def round_axis(low: float, high: float) -> tuple[float, float, float]:
    """The ends of an axis that holds these values, and the step between its lines, all of them round numbers."""
    step = _nice_step((high - low) or max(abs(high), 1.0))
    start = math.floor(low / step) * step
    return start, max(math.ceil(high / step) * step, start + step), step


def _nice_step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that about :data:`_GRID_LINES` lines cover the span."""
    power = 10.0 ** math.floor(math.log10(span / _GRID_LINES))
    return next(power * times for times in (1, 2, 5, 10) if power * times * _GRID_LINES >= span)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _cell(content: bytes) -> Image.Image:
    with open_picture(io.BytesIO(content), "a thumbnail", PNG) as thumbnail:
        picture = thumbnail.convert("RGB")
    picture.thumbnail((_CELL, _CELL), Image.Resampling.BOX)
    return picture


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _encoded(image: Image.Image, image_format: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, optimize=True, quality=88)
    return stream.getvalue()
