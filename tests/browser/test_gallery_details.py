"""What the gallery says of a step is what the arrays have, whatever the spaces."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from rlhfblender_core.environments.spaces import describe_space
from rlhfblender_core.gallery import write_gallery
from rlhfblender_core.registry import EnvironmentRecord, open_registry
from tests.support.file_server import served_folder
from tests.support.gallery_page import OpenPage, Page, fits, pause, readings
from tests.support.synthetic import ACTIONS, Synthetic


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
    "half floats": (lambda n: {"obs": rows(n, 2, dtype="<f2")}, None, {"Observation": ["[0]", "[1]"]}),
    "commas": (
        lambda n: {"obs.x, %22y%22": rows(n, 20)},
        None,
        {"Observation": [f'x, "y"[{index}]' for index in range(4)]},
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


@pytest.mark.soak
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


def test_names_with_commas_and_quotes_are_chosen_and_linked_to(open_page: OpenPage, spaces_root: Path) -> None:
    page = open_page(spaces_root, "commas")
    page.click(".card >> nth=0")
    page.wait_for_selector("input[data-obs]")
    page.fill("input[data-obs]", r'"x, \"y\"[3]" "x, \"y\"[17]", nonsense')
    page.press("input[data-obs]", "Enter")
    page.wait_for_selector(".reading >> text=/^17$/")
    again = open_page(spaces_root, page.evaluate("location.hash").removeprefix("#/"))
    again.wait_for_selector(".plot")
    assert list(readings(again)) == ["reward", "uncertainty", 'x, "y"[3]', 'x, "y"[17]']


def test_labels_begin_with_the_space_s_first_action(open_page: OpenPage, tmp_path: Path) -> None:
    """Also where no action of an episode says that 0 isn't the first one."""

    def arrays(length: int) -> dict[str, np.ndarray]:
        return {"actions": rows(length, dtype="<i8") % 2 + 1, "probs": np.tile(np.array([0.5, 0.2, 0.3]), (length, 1))}

    root = Synthetic(tmp_path, "E", "demo", 1, 0, 12, actions=None, own_arrays=arrays).publish()
    space = describe_space(spaces.Discrete(3, start=1))
    with open_registry(f"sqlite:///{tmp_path}/rlhfblender.db") as registry:
        registry.ensure_environment(EnvironmentRecord(env_id="Made/Up-v0", action_space=space, action_names=ACTIONS))
        write_gallery(root, registry=registry)
    page = open_page(tmp_path)
    page.click(".card >> nth=0")
    page.wait_for_selector(".action-label", state="visible")
    assert page.text_content(".action-label") == "left · 50 %"
    assert readings(page)["Action"] == "left (1)"
    assert set(ACTIONS) <= set(readings(page))


def test_rewards_that_add_up_to_no_number_are_shown(open_page: OpenPage, tmp_path: Path) -> None:
    root = Synthetic(tmp_path, "E", "demo", 1, 0, 12).publish()
    write_gallery(root)
    rewards = tmp_path / "rewards/E/demo/0.npy"
    np.save(rewards, np.full_like(np.load(rewards), np.nan))
    with served_folder(tmp_path, with_ranges=True) as (address, _):
        page = open_page(address)
        page.click(".card >> nth=0")
        page.wait_for_selector(".plot")
        said = readings(page)
    assert float(said["reward"]) == pytest.approx(dict(np.load(tmp_path / "episodes/E/demo/0.npz"))["rewards"][0], 0.01)


def test_the_curves_of_a_single_step_are_seen(open_page: OpenPage, tmp_path: Path) -> None:
    write_gallery(Synthetic(tmp_path, "E", "demo", 1, 1, mean_length=1).publish())
    page = open_page(tmp_path)
    page.click(".card >> nth=0")
    page.wait_for_selector(".plot-picture circle")
    assert page.locator(".plot", has_text="Value").locator("circle").count() == 1
