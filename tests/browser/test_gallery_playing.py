"""An episode in the gallery plays: video, cursors, keys, one beside the others."""

from pathlib import Path

import pytest

from rlhfblender_core.gallery import write_gallery
from tests.support.gallery_page import OpenPage, cursor_steps, pause, shown_share
from tests.support.synthetic import Synthetic


def test_video_plays_and_moves_the_cursors(open_page: OpenPage, data_root: Path, tmp_path: Path) -> None:
    page = open_page(data_root)
    page.screenshot(path=tmp_path / "gallery.png")
    page.click(".card >> nth=0")
    page.wait_for_function("document.querySelector('video').currentTime > 0.3")
    page.wait_for_function("Number(document.querySelector('.cursor[data-step]').dataset.step) > 5")
    assert page.evaluate("document.querySelector('video').videoWidth") == 240
    page.screenshot(path=tmp_path / "viewer.png")


def test_seeking_on_a_curve_moves_video_and_cursors(open_page: OpenPage, data_root: Path, tmp_path: Path) -> None:
    page = open_page(data_root)
    page.click(".card >> nth=0")
    pause(page)
    page.wait_for_selector(".plot >> nth=5")
    box = page.locator(".plot-area >> nth=1").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.755, box["y"] + 20)
    page.wait_for_function("!document.querySelector('video').seeking")
    assert cursor_steps(page) == [45] * 6
    assert page.evaluate("Math.floor(document.querySelector('video').currentTime * 30)") == 45
    assert page.text_content("#step") == "46 / 60"
    cursor = page.locator(".cursor[data-step] >> nth=0").bounding_box()
    area = page.locator(".plot-area >> nth=0").bounding_box()
    assert cursor["x"] - area["x"] == pytest.approx(area["width"] * 45.5 / 60, abs=2)
    page.screenshot(path=tmp_path / "sought.png")
    # Dragging, and what is on the screen: the bar at the bottom of the picture is as long as the step is late.
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20, steps=4)
    page.mouse.up()
    assert cursor_steps(page) == [15] * 6
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
    page.wait_for_selector(".cursor[data-step='9']")
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
    page.wait_for_selector(".plot")
    assert page.query_selector("video") is None
    assert len(cursor_steps(page)) == 6
    page.click("#play")
    page.wait_for_function("Number(document.querySelector('.cursor[data-step]').dataset.step) > 3")


def test_back_leads_from_an_episode_to_the_grid(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    page.click(".card >> nth=1")
    page.wait_for_selector(".plot")
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


def test_an_episode_across_checkpoints_plays_in_step(open_page: OpenPage, data_root: Path, tmp_path: Path) -> None:
    page = open_page(data_root)
    page.click(".card >> nth=2")
    page.wait_for_selector(".plot")
    page.select_option("#across", "4")
    page.wait_for_selector(".tile >> nth=2")
    labels = page.eval_on_selector_all(".tile", "tiles => tiles.map(tile => tile.dataset.label)")
    assert labels == ["random", "20000", "100000"]
    assert page.text_content("#facts").count("2") >= 1
    page.wait_for_function("Number(document.querySelector('.tile').dataset.step) > 20")
    times = page.eval_on_selector_all(".tile video", "all => all.map(one => one.currentTime)")
    assert max(times) - min(times) < 0.25
    page.click("#play")
    page.wait_for_selector(".play:not(.is-playing)")
    page.keyboard.press("Home")
    for _ in range(4):
        page.keyboard.press("Shift+ArrowRight")
    page.wait_for_function("[...document.querySelectorAll('.tile video')].every(one => !one.seeking)")
    steps = "all => all.map(one => Math.floor(one.currentTime * 30))"
    assert page.eval_on_selector_all(".tile video", steps) == [40, 40, 40]
    page.screenshot(path=tmp_path / "across.png")
    # The link shows the same; a tile leads to that episode, and the grid with it.
    again = open_page(data_root, page.evaluate("location.hash").removeprefix("#/"))
    again.wait_for_selector(".tile >> nth=2")
    again.click('.tile[data-label="20000"]')
    again.wait_for_selector(".plot >> nth=5")
    assert again.text_content("#viewer-subtitle").endswith("20000")
    assert again.get_attribute("#chart", "data-label") == "20000"
