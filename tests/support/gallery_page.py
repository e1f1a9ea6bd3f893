"""What tests of the gallery's page do with it, in a real Chromium."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

Page = Any
OpenPage = Callable[..., Page]


def shown_numbers(page: Page) -> list[int]:
    return page.eval_on_selector_all(".card", "cards => cards.map(card => Number(card.dataset.n))")


def cursor_steps(page: Page) -> list[int]:
    return page.eval_on_selector_all(".cursor[data-step]", "all => all.map(one => Number(one.dataset.step))")


def shown_share(page: Page) -> float:
    """How long the bar at the bottom of the synthetic picture is that the screen shows, from 0 to 1."""
    video = page.locator("video")
    page.add_style_tag(content=".action-label { display: none }")  # it lies over the bar
    picture = np.asarray(Image.open(io.BytesIO(video.screenshot())).convert("RGB")).astype(int)
    height, width = picture.shape[:2]
    shown_width, shown_height = min(width, height * 1.5), min(height, width / 1.5)  # the rest is left empty
    row = int(height / 2 + shown_height * 0.485)
    bar = picture[row, :, 0] - picture[row, :, 2] > 60
    return float(bar.sum() / shown_width)


def pause(page: Page) -> None:
    page.wait_for_selector(".play.is-playing")
    page.click("#play")
    page.wait_for_selector(".play:not(.is-playing)")


def readings(page: Page) -> dict[str, str]:
    return page.eval_on_selector_all(
        ".reading", "all => Object.fromEntries(all.map(one => [one.dataset.name, one.textContent]))"
    )


def fits(page: Page) -> bool:
    """Whether neither the page nor what is open in it could be scrolled sideways."""
    return page.evaluate(
        """() => [document.documentElement, document.querySelector('#viewer'), document.querySelector('.viewer-body'),
        document.querySelector('#curves')].every(one => one.scrollWidth <= one.clientWidth)"""
    )
