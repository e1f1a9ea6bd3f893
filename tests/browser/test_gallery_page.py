"""The gallery's page as a whole: widths, colours, many checkpoints, many episodes, notes."""

import itertools
import time
from pathlib import Path

import pytest

from benchmarks.clone_episodes import clone_episodes
from rlhfblender_core.gallery import write_gallery
from rlhfblender_core.gallery.write import gallery
from tests.support.gallery_page import OpenPage, Page, fits
from tests.support.soak import sampled
from tests.support.synthetic import Synthetic

#: Seconds in which a page with thousands of episodes has to show its first ones, on a slow machine.
_OPENS_WITHIN = 10.0
#: Milliseconds of a frame, on a slow machine.
_FRAME_MS = 16.0


@pytest.mark.parametrize(
    ("scheme", "width"),
    sampled(itertools.product(["light", "dark"], [1440, 1280, 390]), ("dark", 1440), ("light", 390)),
)
def test_page_follows_the_colour_scheme_and_fits_its_width(
    open_page: OpenPage, data_root: Path, tmp_path: Path, scheme: str, width: int
) -> None:
    page = open_page(data_root, color_scheme=scheme, viewport={"width": width, "height": 860})
    red = page.evaluate("getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 60) == (scheme == "dark")
    page.screenshot(path=tmp_path / f"gallery-{width}-{scheme}.png")
    assert fits(page)
    page.click(".card >> nth=1")
    page.wait_for_selector(".plot >> nth=5")
    page.screenshot(path=tmp_path / f"episode-{width}-{scheme}.png")
    assert fits(page)
    page.select_option("#across", "4")
    page.wait_for_selector(".tile >> nth=2")
    page.wait_for_function("Number(document.querySelector('.tile').dataset.step) > 20")  # all of them play
    page.screenshot(path=tmp_path / f"across-{width}-{scheme}.png")
    page.set_viewport_size({"width": width, "height": 250})
    beside = "all => all.map(one => one.clientWidth - one.firstElementChild.offsetWidth)"
    assert page.eval_on_selector_all(".tile", beside) == [0, 0, 0]
    assert fits(page)
    page.keyboard.press("Escape")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == ("light" if scheme == "dark" else "dark")


def test_narrow_screens_have_two_cards_side_by_side(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root, viewport={"width": 390, "height": 800})
    tops = page.eval_on_selector_all(".card", "cards => cards.map(card => card.offsetTop)")
    assert tops[0] == tops[1] < tops[2]


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("checkpoints", sampled([52, 500], 52))
def test_curve_of_many_checkpoints_fits_and_tells_each(
    open_page: OpenPage, tmp_path: Path, checkpoints: int, width: int
) -> None:
    for index in range(checkpoints):
        label = str(1000 * 2**index if index < 3 else 10_000 * index)  # uneven steps
        root = Synthetic(tmp_path, checkpoint=label, episodes=2, videos=0, mean_length=5).publish()
    write_gallery(root)
    page = open_page(tmp_path, viewport={"width": width, "height": 800})
    assert page.get_attribute("#chart", "data-mode") == "bands"
    assert fits(page)
    box = page.locator("#chart").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80)
    at = int(page.text_content(".tip strong").removeprefix("step ").replace(",", ""))
    assert at == pytest.approx(5000 * checkpoints, rel=0.2)  # its true place
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 80)
    assert page.get_attribute("#chart", "data-label") == str(at)
    page.screenshot(path=tmp_path / f"curve-{checkpoints}-{width}.png")


@pytest.mark.parametrize("episodes", sampled([1_100, 10_000], 1_100))
def test_thousands_of_episodes_open_at_once_and_scroll(open_page: OpenPage, tmp_path: Path, episodes: int) -> None:
    write_gallery(Synthetic(tmp_path, episodes=episodes, videos=3, mean_length=4).publish())
    # Pieces are loaded as they are looked at: without the others the first episodes are shown as well.
    others = [
        path
        for path in tmp_path.glob("gallery/data/*.js")
        if "-" not in path.name and '"n":[0,' not in path.read_text()
    ]
    assert len(others) == (episodes - 1) // 1000
    for path in others:
        path.rename(path.with_suffix(".away"))
    started = time.monotonic()
    page = open_page(tmp_path)
    assert time.monotonic() - started < _OPENS_WITHIN
    assert page.text_content("#count") == f"{episodes:,} episodes"
    for path in others:
        path.with_suffix(".away").rename(path)
    for _ in range(20):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(20)
        assert len(page.query_selector_all(".card")) < 100
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_selector(f'.card[data-n="{episodes - 1}"]')
    assert frame_milliseconds(page) < _FRAME_MS
    page.select_option("#sort", "length:-1")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function(f"document.querySelector('#count').textContent === '{episodes:,} episodes'")
    page.wait_for_selector(".card")
    lengths = page.eval_on_selector_all(".card-length", "all => all.map(one => parseInt(one.textContent))")
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.soak
@pytest.mark.parametrize(("episodes", "checkpoints"), [(100_000, 1), (200, 500)])
def test_a_hundred_thousand_episodes_open_in_two_seconds_and_scroll_smoothly(
    open_page: OpenPage, tmp_path: Path, episodes: int, checkpoints: int
) -> None:
    root = tmp_path / "data"
    clone_episodes(root, episodes, checkpoints=checkpoints)
    gallery(data_root=str(root))
    page = open_page(root)
    page.wait_for_selector(".card:not(.is-waiting)")
    assert processor_seconds(page) < 1
    page.screenshot(path=tmp_path / f"gallery-{checkpoints}x{episodes}.png")
    assert frame_milliseconds(page) < _FRAME_MS


def processor_seconds(page: Page) -> float:
    """Of the page's process since it began: what it takes on a machine that is busy with others is no measure."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics = {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["ProcessTime"])


def frame_milliseconds(page: Page) -> float:
    """Processor time of a frame, scrolling by 3,600 pixels a second: below 16 ms sixty can be drawn."""
    before = processor_seconds(page)
    page.evaluate(
        """async () => { for (let frame = 1; frame <= 60; frame += 1) { scrollTo(0, 60 * frame);
        await new Promise(requestAnimationFrame); } }"""
    )
    return 1000 * (processor_seconds(page) - before) / 60


def test_notes_are_shown(open_page: OpenPage, data_root: Path, tmp_path: Path) -> None:
    root = Synthetic(tmp_path, episodes=2, videos=0).publish()
    next(tmp_path.glob("manifests/*/*/1.json")).unlink()
    write_gallery(root)
    assert "without manifest" in open_page(tmp_path).inner_text("#notes")
    assert open_page(data_root).is_hidden("#notes")
