"""The gallery in a real Chromium. Screenshots are left in pytest's output folder (``--basetemp``)."""

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rlhfblender_core.gallery import INDEX_PATH, write_gallery
from tests.support.synthetic import Synthetic

_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
#: Seconds in which a page with 1,000 episodes has to show its first ones, on a slow machine.
_OPENS_WITHIN = 10.0

Page = Any
OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = (
        os.environ.get("RLHFBLENDER_TESTS_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )
    if program is None:
        pytest.skip("no Chromium on this machine; install one, or name it in RLHFBLENDER_TESTS_CHROMIUM")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=_FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    for label, level in (("random", 0.2), ("20000", 0.7), ("100000", 1.5)):
        Synthetic(folder, "A (b) = c", label, episodes=8, videos=5, level=level).publish()
    write_gallery(Synthetic(folder, "Other", "final", episodes=2, videos=1).publish())
    return folder


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens a page of a data root; in the end no page may have complained."""
    complaints: list[str] = []
    pages = []

    def open_it(root: Path, where: str = "", **options: Any) -> Page:
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 860}, **options})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{(root / INDEX_PATH).as_uri()}#/{where}")
        page.wait_for_selector(".card")
        pages.append(page)
        return page

    yield open_it
    for page in pages:
        page.close()
    assert complaints == []


def shown_numbers(page: Page) -> list[int]:
    return page.eval_on_selector_all(".card", "cards => cards.map(card => Number(card.dataset.n))")


def cursor_steps(page: Page) -> list[int]:
    return page.eval_on_selector_all(".cursor", "all => all.map(one => Number(one.dataset.step))")


def shown_share(page: Page) -> float:
    """How long the bar at the bottom of the synthetic picture is that the screen shows, from 0 to 1."""
    video = page.locator("video")
    picture = np.asarray(Image.open(io.BytesIO(video.screenshot())).convert("RGB")).astype(int)
    height, width = picture.shape[:2]
    bar = picture[int(height * 0.985), :, 0] - picture[int(height * 0.985), :, 2] > 60
    return float(bar.sum() / (height * 240 / 160 if width > height * 1.5 else width))


def pause(page: Page) -> None:
    page.wait_for_selector(".play.is-playing")
    page.click("#play")
    page.wait_for_selector(".play:not(.is-playing)")


def test_video_plays_and_moves_the_cursors(open_page: OpenPage, data_root: Path, tmp_path: Path) -> None:
    page = open_page(data_root)
    page.screenshot(path=tmp_path / "gallery.png")
    page.click(".card >> nth=0")
    page.wait_for_function("document.querySelector('video').currentTime > 0.3")
    page.wait_for_function("Number(document.querySelector('.cursor').dataset.step) > 5")
    assert page.evaluate("document.querySelector('video').videoWidth") == 240
    page.screenshot(path=tmp_path / "viewer.png")


def test_seeking_on_a_curve_moves_video_and_cursors(open_page: OpenPage, data_root: Path, tmp_path: Path) -> None:
    page = open_page(data_root)
    page.click(".card >> nth=0")
    pause(page)
    box = page.locator(".curve-area >> nth=1").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.755, box["y"] + 20)
    page.wait_for_function("!document.querySelector('video').seeking")
    assert cursor_steps(page) == [45, 45]
    assert page.evaluate("Math.floor(document.querySelector('video').currentTime * 30)") == 45
    assert page.text_content("#step") == "46 / 60"
    cursor, area = page.locator(".cursor >> nth=0").bounding_box(), page.locator(".curve-area >> nth=0").bounding_box()
    assert cursor["x"] - area["x"] == pytest.approx(area["width"] * 45.5 / 60, abs=2)
    page.screenshot(path=tmp_path / "sought.png")
    # Dragging, and what is on the screen: the bar at the bottom of the picture is as long as the step is late.
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20, steps=4)
    page.mouse.up()
    assert cursor_steps(page) == [15, 15]
    page.wait_for_function("!document.querySelector('video').seeking")
    assert shown_share(page) == pytest.approx(15 / 59, abs=0.03)


def test_keys_step_play_change_episode_and_close(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    page.focus(".card >> nth=0")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.text_content("#viewer-title") == "Episode 1"
    page.wait_for_selector(".play.is-playing")
    page.keyboard.press("Space")
    page.wait_for_selector(".play:not(.is-playing)")
    page.keyboard.press("Home")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".cursor")
    assert set(cursor_steps(page)) == {9}
    page.keyboard.press("Space")
    page.wait_for_selector(".play.is-playing")
    page.keyboard.press("ArrowDown")
    assert page.text_content("#viewer-title") == "Episode 2"
    page.keyboard.press("Escape")
    page.wait_for_selector("#viewer", state="hidden")
    page.wait_for_function("document.activeElement.dataset.n === '2'")


def test_episode_without_video_shows_its_curves_and_moves_by_a_clock(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    assert page.text_content('.card[data-n="6"] .bare-text') == "no video"
    page.click('.card[data-n="6"]')
    page.wait_for_selector(".curve")
    assert page.query_selector("video") is None
    assert len(cursor_steps(page)) == 2
    page.click("#play")
    page.wait_for_function("Number(document.querySelector('.cursor').dataset.step) > 3")


def test_back_leads_from_an_episode_to_the_grid(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    page.click(".card >> nth=1")
    page.wait_for_selector(".curve")
    page.click("#next")
    page.evaluate("document.querySelector('#grid').dataset.kept = 'yes'")
    page.go_back()
    page.wait_for_selector("#viewer", state="hidden")
    assert page.get_attribute("#grid", "data-kept") == "yes"
    assert page.evaluate("decodeURIComponent(location.hash)") == "#/A (b) = c/100000"
    page.go_forward()
    page.wait_for_selector("#viewer", state="visible")
    assert page.text_content("#viewer-title") == "Episode 2"


def test_a_video_that_is_missing_is_not_taken_for_one_that_never_was(open_page: OpenPage, tmp_path: Path) -> None:
    root = Synthetic(tmp_path, episodes=2, videos=1).publish()
    next(tmp_path.glob("renders/*/*/0.mp4")).unlink()
    write_gallery(root)
    page = open_page(tmp_path)
    page.click(".card >> nth=0")
    assert "file is missing" in page.text_content("#screen")
    page.keyboard.press("ArrowDown")
    assert "without rendering" in page.text_content("#screen")


def test_filters_and_sorting(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    returns = "cards => cards.map(card => Number(card.querySelector('.card-return').textContent.replace(',', '')))"
    page.select_option("#sort", "return:-1")
    values = page.eval_on_selector_all(".card", returns)
    assert values == sorted(values, reverse=True)
    page.fill("#return-min", str(values[3]))
    assert len(shown_numbers(page)) in (3, 4)  # what is shown is rounded
    assert page.text_content("#count").endswith("of 8 episodes")
    page.select_option("#ended", "truncated")
    assert all(number % 3 == 0 for number in shown_numbers(page))
    page.fill("#length-min", "100000")
    page.wait_for_selector("#empty", state="visible")
    page.click("#reset")
    page.wait_for_selector(".card")
    assert shown_numbers(page) == list(range(8))


def test_checkpoints_and_experiments_are_chosen_and_linked_to(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    assert page.get_attribute(".column[aria-selected=true]", "data-label") == "100000"
    page.click('.column[data-label="random"]')
    page.wait_for_function("document.querySelector('#chart-reading').textContent.startsWith('random')")
    address = page.evaluate("location.hash")
    again = open_page(data_root, address.removeprefix("#/"))
    assert again.get_attribute(".column[aria-selected=true]", "data-label") == "random"
    again.select_option("#experiment", "Other")
    again.wait_for_function("document.querySelectorAll('.card').length === 2")
    assert again.text_content("#experiment-name") == "Other"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_colour_scheme_and_narrow_screens(
    open_page: OpenPage, data_root: Path, tmp_path: Path, scheme: str
) -> None:
    page = open_page(data_root, color_scheme=scheme, viewport={"width": 390, "height": 800})
    red = page.evaluate("getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 60) == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("getComputedStyle(document.querySelector('#grid')).gridTemplateColumns.split(' ').length") == 2
    page.screenshot(path=tmp_path / f"narrow-{scheme}.png")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == ("light" if scheme == "dark" else "dark")


def test_thousand_episodes_stay_fluid(open_page: OpenPage, tmp_path: Path) -> None:
    write_gallery(Synthetic(tmp_path, episodes=1000, videos=3, mean_length=200).publish())
    started = time.monotonic()
    page = open_page(tmp_path)
    assert time.monotonic() - started < _OPENS_WITHIN
    assert page.text_content("#count") == "1,000 episodes"
    page.select_option("#sort", "length:1")
    sorting = page.evaluate(
        """() => { const before = performance.now();
        document.querySelector('#filters').dispatchEvent(new Event('input')); return performance.now() - before; }"""
    )
    assert sorting < 1000
    for _ in range(40):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(20)
    page.wait_for_function("document.querySelectorAll('.card').length === 1000")
