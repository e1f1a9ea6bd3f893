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

from benchmarks.clone_episodes import clone_episodes
from rlhfblender_core.gallery import INDEX_PATH, write_gallery
from rlhfblender_core.gallery.write import gallery
from tests.support.file_server import served_folder
from tests.support.synthetic import ACTIONS, Synthetic

_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
#: Seconds in which a page with 10,000 episodes has to show its first ones, on a slow machine.
_OPENS_WITHIN = 10.0
#: Milliseconds of a frame, on a slow machine.
_FRAME_MS = 16.0

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

    def open_it(root: Path | str, where: str = "", **options: Any) -> Page:
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 860}, **options})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        address = (root / INDEX_PATH).as_uri() if isinstance(root, Path) else f"{root}/{INDEX_PATH}"
        page.goto(f"{address}#/{where}")
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


def test_filters_and_sorting(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    returns = "cards => cards.map(card => Number(card.querySelector('.card-return').textContent.replace(',', '')))"
    page.select_option("#sort", "return:-1")
    values = page.eval_on_selector_all(".card", returns)
    assert values == sorted(values, reverse=True)
    page.fill("#return-min", str(values[3]))
    page.wait_for_function("document.querySelectorAll('.card').length < 5")
    assert len(shown_numbers(page)) in (3, 4)  # what is shown is rounded
    assert page.text_content("#count").endswith("of 8 episodes")
    page.select_option("#ended", "truncated")
    assert all(number % 3 == 0 for number in shown_numbers(page))
    page.fill("#length-min", "100000")
    page.wait_for_selector("#empty", state="visible")
    page.click("#reset")
    page.wait_for_selector(".card")
    assert shown_numbers(page) == list(range(8))


def test_sorting_and_filters_are_in_the_link(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    page.select_option("#sort", "return:-1")
    page.fill("#length-max", "60")
    page.select_option("#ended", "terminated")
    page.wait_for_function("document.querySelector('#count').textContent.includes(' of ')")
    address, shown = page.evaluate("location.hash"), shown_numbers(page)
    again = open_page(data_root, address.removeprefix("#/"))
    assert shown_numbers(again) == shown
    assert again.input_value("#sort") == "return:-1"
    assert again.input_value("#length-max") == "60"
    # Opened and closed, the link of an episode keeps them.
    again.click(".card >> nth=0")
    again.wait_for_selector(".plot")
    assert "sort=return" in again.evaluate("location.hash")
    again.keyboard.press("Escape")
    again.wait_for_function("address => location.hash === address", arg=address)


def test_words_in_the_link_that_mean_nothing_are_left_aside(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root, "Nothing/there/99?sort=evil:1&ended=%3Cscript%3E&across=77&length-max=x")
    assert len(shown_numbers(page)) == 8
    assert page.input_value("#sort") == "n:1"


def test_checkpoints_and_experiments_are_chosen_and_linked_to(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    assert page.get_attribute("#chart", "data-label") == "100000"
    box = page.locator("#chart").bounding_box()
    page.mouse.move(box["x"] + 70, box["y"] + 90)
    page.wait_for_selector(".tip", state="visible")
    assert page.text_content(".tip strong") == "random"
    assert "quartiles" in page.text_content(".tip")
    page.mouse.click(box["x"] + 70, box["y"] + 90)
    page.wait_for_function("document.querySelector('#chart-reading').textContent.startsWith('random')")
    page.wait_for_selector('.card[data-n="0"]')
    address = page.evaluate("location.hash")
    again = open_page(data_root, address.removeprefix("#/"))
    assert again.get_attribute("#chart", "data-label") == "random"
    again.focus("#chart")
    again.keyboard.press("ArrowRight")
    assert again.get_attribute("#chart", "data-label") == "20000"
    again.select_option("#checkpoint", "2")
    assert again.get_attribute("#chart", "data-label") == "100000"
    again.select_option("#experiment", "Other")
    again.wait_for_function("document.querySelectorAll('.card').length === 2")
    assert again.text_content("#experiment-name") == "Other"


def readings(page: Page) -> dict[str, str]:
    return page.eval_on_selector_all(
        ".reading", "all => Object.fromEntries(all.map(one => [one.dataset.name, one.textContent]))"
    )


def published(root: Path, number: int) -> dict[str, np.ndarray]:
    return dict(np.load(root / f"episodes/A (b) = c/100000/{number}.npz"))


def check_details(page: Page, arrays: dict[str, np.ndarray], *, can_seek: bool = True) -> None:
    """Everything that is said of a step is what the arrays have."""
    page.wait_for_selector(".plot >> nth=5")
    pause(page)
    if can_seek:
        page.keyboard.press("Home")
        for _ in range(3):
            page.keyboard.press("Shift+ArrowRight")
        page.wait_for_function("document.querySelector('#step').textContent === '31 / 60'")
    step = int(page.text_content("#step").split()[0]) - 1
    action = int(arrays["actions"][step])
    assert page.text_content(".action-label") == f"{ACTIONS[action]} · {round(100 * arrays['probs'][step][action])} %"
    said = readings(page)
    assert said["Action"] == f"{ACTIONS[action]} ({action})"
    expected = {
        **{name: arrays["probs"][step][index] for index, name in enumerate(ACTIONS)},
        **{f"[{index}]": arrays["obs"][step][index] for index in range(4)},
        "reward": arrays["rewards"][step],
        "value": arrays["values"][step],
    }
    assert {name: float(said[name]) for name in expected} == pytest.approx(expected, rel=0.01, abs=0.001)


def test_action_probabilities_value_and_observations_are_beside_the_video(
    open_page: OpenPage, data_root: Path, tmp_path: Path
) -> None:
    page = open_page(data_root)
    page.click(".card >> nth=1")
    check_details(page, published(data_root, 1))
    page.screenshot(path=tmp_path / "details.png")
    page.click('[data-obs="[0]"]')
    page.click('[data-obs="[2]"]')
    page.wait_for_function("document.querySelectorAll('.reading[data-name^=\"[\"]').length === 2")
    assert "obs=" in page.evaluate("location.hash")
    page.click("#next")
    page.wait_for_selector(".plot >> nth=5")
    assert {"[1]", "[3]"} <= set(readings(page))
    assert "[0]" not in readings(page)


EVIL = "</script><img src=x onerror=window.evil=1>\"'"


def rows(length: int, *shape: int, dtype: str = "<f4") -> np.ndarray:
    return np.arange(length * int(np.prod(shape, dtype=int)), dtype="<i8").reshape(length, *shape).astype(dtype)


#: What there is in an episode, whether actions have labels, and which tracks are drawn with which readings.
SPACES: dict[str, tuple[Callable[[int], dict[str, np.ndarray]], tuple[str, ...] | None, dict[str, list[str]]]] = {
    "Dict": (
        lambda n: {"obs.a%2Fb": rows(n, 2), "obs.camera": rows(n, 8, 9, 3, dtype="|u1"), "obs.word": np.full(n, "go")},
        None,
        {"Observation": ["a/b[0]", "a/b[1]"]},
    ),
    "pictures": (
        lambda n: {"obs": rows(n, 84, 84, 3, dtype="|u1"), "actions": rows(n, dtype="<i8") % 3},
        ACTIONS,
        {"Action": ["Action"]},
    ),
    "float pictures": (lambda n: {"obs": rows(n, 30, 30)}, None, {}),
    "MultiDiscrete": (
        lambda n: {"actions": rows(n, 2, dtype="<i8") % 4, "probs": rows(n, 5)},
        None,
        {
            "Action [0]": ["Action [0]"],
            "Action [1]": ["Action [1]"],
            "Probability": ["[0]", "[1]", "[2]", "[3]", "[4]"],
        },
    ),
    "Box of 1": (
        lambda n: {"actions": rows(n, 1), "action_mean": rows(n, 1), "action_std": np.ones((n, 1), "<f4")},
        None,
        {"Action · mean ± deviation": ["[0]"]},
    ),
    "Box of 17": (lambda n: {"actions": rows(n, 17)}, None, {"Action": ["[0]", "[1]", "[2]", "[3]"]}),
    "counted from -1": (
        lambda n: {"actions": rows(n, dtype="<i8") % 3 - 1, "probs": rows(n, 3), "obs": rows(n)},
        None,
        {"Action": ["Action"], "Probability": ["[0]", "[1]", "[2]"], "Observation": ["[0]"]},
    ),
    "hostile": (
        lambda n: {"actions": rows(n, dtype="<i8") % 2, "obs." + EVIL.replace("/", "%2F"): rows(n)},
        (EVIL, "' onclick='alert(1)"),
        {"Action": ["Action"], "Observation": [EVIL]},
    ),
}


@pytest.fixture(scope="module")
def spaces_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spaces")
    for name, (arrays, labels, _) in SPACES.items():
        made = Synthetic(folder, name, "demo", 2, 0, 12, environment=EVIL, actions=labels, own_arrays=arrays)
        root = made.publish()
    write_gallery(root)
    return folder


@pytest.mark.parametrize("is_served", [False, True])
def test_every_kind_of_space_is_shown(open_page: OpenPage, spaces_root: Path, tmp_path: Path, is_served: bool) -> None:
    with served_folder(spaces_root, with_ranges=True) as (address, _):
        for name, (_, _, tracks) in SPACES.items():
            page = open_page(address if is_served else spaces_root, name)
            page.click(".card >> nth=0")
            page.wait_for_selector(".plot")
            page.screenshot(path=tmp_path / f"{name}.png")
            shown = page.evaluate(
                """() => Object.fromEntries([...document.querySelectorAll('.plot')].map(plot =>
                [plot.querySelector('h3').textContent,
                [...plot.querySelectorAll('.reading')].map(one => one.dataset.name)]))"""
            )
            assert shown == {**tracks, "Reward": ["reward"], "Uncertainty · entropy, nats": ["uncertainty"]}
            assert page.evaluate("window.evil") is None
            assert fits(page)


def test_parts_of_a_large_action_are_chosen_and_linked_to(open_page: OpenPage, spaces_root: Path) -> None:
    page = open_page(spaces_root, "Box of 17")
    page.click(".card >> nth=0")
    page.wait_for_selector("input[data-act]")
    page.fill("input[data-act]", "3, 16, 99")
    page.press("input[data-act]", "Enter")
    page.wait_for_selector('.reading[data-name="[16]"]')
    assert list(readings(page)) == ["[3]", "[16]", "reward", "uncertainty"]
    assert page.text_content('.reading[data-name="[16]"]') == "16"
    again = open_page(spaces_root, page.evaluate("location.hash").removeprefix("#/"))
    again.wait_for_selector(".plot")
    assert list(readings(again)) == ["[3]", "[16]", "reward", "uncertainty"]


def test_an_action_that_is_no_index_has_no_probability_of_another(open_page: OpenPage, spaces_root: Path) -> None:
    page = open_page(spaces_root, "counted from -1")
    page.click(".card >> nth=0")
    page.wait_for_selector(".action-label", state="visible")
    assert page.text_content(".action-label") == "action -1"


@pytest.mark.parametrize("with_ranges", [True, False])
def test_served_pages_read_the_episodes_own_files(open_page: OpenPage, tmp_path: Path, with_ranges: bool) -> None:
    """As on object storage: no arrays in scripts, whether or not the server knows ranges."""
    root = Synthetic(tmp_path, "A (b) = c", "100000", episodes=2, videos=2).publish()
    write_gallery(root)
    for script in tmp_path.glob("gallery/data/*-*.js"):
        script.unlink()
    with served_folder(tmp_path, with_ranges=with_ranges) as (address, requests):
        page = open_page(address)
        page.click(".card >> nth=1")
        check_details(page, published(tmp_path, 1), can_seek=with_ranges)
    assert any(path.endswith("/1.npz") for path in requests)


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 1280, 390])
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
    assert fits(page)
    page.keyboard.press("Escape")
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") == ("light" if scheme == "dark" else "dark")


def fits(page: Page) -> bool:
    """Whether neither the page nor what is open in it could be scrolled sideways."""
    return page.evaluate(
        """() => [document.documentElement, document.querySelector('#viewer'), document.querySelector('.viewer-body'),
        document.querySelector('#curves')].every(one => one.scrollWidth <= one.clientWidth)"""
    )


def test_narrow_screens_have_two_cards_side_by_side(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root, viewport={"width": 390, "height": 800})
    tops = page.eval_on_selector_all(".card", "cards => cards.map(card => card.offsetTop)")
    assert tops[0] == tops[1] < tops[2]


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("checkpoints", [52, 500])
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


def test_ten_thousand_episodes_open_at_once_and_scroll(open_page: OpenPage, tmp_path: Path) -> None:
    write_gallery(Synthetic(tmp_path, episodes=10_000, videos=3, mean_length=4).publish())
    # Pieces are loaded as they are looked at: without the others the first episodes are shown as well.
    others = [
        path
        for path in tmp_path.glob("gallery/data/*.js")
        if "-" not in path.name and '"n":[0,' not in path.read_text()
    ]
    assert len(others) == 9
    for path in others:
        path.rename(path.with_suffix(".away"))
    started = time.monotonic()
    page = open_page(tmp_path)
    assert time.monotonic() - started < _OPENS_WITHIN
    assert page.text_content("#count") == "10,000 episodes"
    for path in others:
        path.with_suffix(".away").rename(path)
    for _ in range(20):
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(20)
        assert len(page.query_selector_all(".card")) < 100
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_selector('.card[data-n="9999"]')
    assert frame_milliseconds(page) < _FRAME_MS
    page.select_option("#sort", "length:-1")
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function("document.querySelector('#count').textContent === '10,000 episodes'")
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
    assert min(opening_seconds(open_page, root) for _ in range(3)) < 2  # the machine may be busy with others
    page = open_page(root)
    page.screenshot(path=tmp_path / f"gallery-{checkpoints}x{episodes}.png")
    assert frame_milliseconds(page) < _FRAME_MS


def opening_seconds(open_page: OpenPage, root: Path) -> float:
    """From nothing to the first cards."""
    started = time.monotonic()
    open_page(root).wait_for_selector(".card:not(.is-waiting)")
    return time.monotonic() - started


def frame_milliseconds(page: Page) -> float:
    """What a frame costs while scrolling by a row at a time: below 16 ms sixty a second can be drawn."""
    return page.evaluate(
        """() => { const grid = document.querySelector('#grid'); const before = performance.now();
        for (let top = 0; top < 60; top += 1) { scrollTo(0, 230 * top); dispatchEvent(new Event('scroll'));
          grid.getBoundingClientRect(); } return (performance.now() - before) / 60; }"""
    )


def test_notes_are_shown(open_page: OpenPage, data_root: Path, tmp_path: Path) -> None:
    root = Synthetic(tmp_path, episodes=2, videos=0).publish()
    next(tmp_path.glob("manifests/*/*/1.json")).unlink()
    write_gallery(root)
    assert "without manifest" in open_page(tmp_path).inner_text("#notes")
    assert open_page(data_root).is_hidden("#notes")
