"""Names of somebody's data set in the gallery's page: nothing in them is executed, and the page stays whole."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from rlhfblender_core.gallery import write_gallery
from tests.support.gallery_page import OpenPage, Page, fits
from tests.support.soak import sampled
from tests.support.synthetic import Synthetic

#: Each would say so by ``window.hit``, or spoil the page or its data.
HOSTILE = {
    "script": "<script>window.hit = 1</script>",
    "end of a script": "</script><script>window.hit = 1</script>",
    "picture": "<img src=x onerror='window.hit = 1'>",
    "end of an attribute": '" onmouseover="window.hit = 1" autofocus onfocus="window.hit = 1',
    "svg": "'><svg onload=window.hit=1>",
    "link": "javascript:window.hit=1//",
    "template": "${window.hit = 1}{{constructor.constructor('window.hit=1')()}}",
    "comment": "<!--<script>",
    "style": "</style><style>* { display: none }",
    "controls": "a\0b\x07c\x1b[2J\r\nd\x85e\u2028f\u2029g",
    "right to left": "\u202egnp.exe\u2066\u202d\u200f",
    "very long": "W" * 5000,
    "long words": "many words " * 500,
    "stacked marks": "Z" + "\u0301\u0489" * 400,
    "prototype": "__proto__",
}
#: Names that folders may have.
NAMES = {
    "W" * 128: "V" * 128,
    "\u0645\u0631\u062d\u0628\u0627 (1)": "\u0645\u0631",
    "constructor": "toString",
    "a, b [c] = d": "e, f",
}


def arrays_named(name: str, steps: int) -> dict[str, Any]:
    """Arrays of an episode whose observations have the name."""
    key = f"obs.{name.replace('/', '|').replace(chr(0), '')}"
    return {
        key: np.zeros((steps, 2), "<f4"),
        f"final_{key}": np.zeros(2, "<f4"),
        "actions": np.arange(steps) % 3,
        "rewards": np.ones(steps),
        "infos": np.array([f'{{"{index}": 1}}' for index in range(steps)]),
    }


def publish(root: Path, name: str, **others: Any) -> None:
    made = Synthetic(
        root, environment=name, actions=(name, "x", name * 2), algorithm=name, warning=name, mean_length=20, **others
    )
    write_gallery(made.publish())


def check_nothing_ran(page: Page) -> None:
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.querySelectorAll('[onerror], [onload], [onfocus], [onmouseover]').length") == 0
    sources = page.eval_on_selector_all("script", "all => all.map(one => one.src || one.type || one.textContent)")
    assert not [source for source in sources if "window.hit" in source]
    links = page.eval_on_selector_all(
        "[href], [src]", "all => all.map(one => one.href?.baseVal ?? one.href ?? one.src)"
    )
    assert not [link for link in links if str(link).strip().lower().startswith("javascript:")]


def look_around(page: Page) -> None:
    """Opens an episode, with everything that names stand in, and the same one across checkpoints."""
    assert fits(page)
    check_nothing_ran(page)
    page.hover(".card >> nth=0")
    page.click(".card >> nth=4")
    page.wait_for_selector(".plot >> nth=0")
    assert fits(page)
    check_nothing_ran(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")


@pytest.mark.parametrize("name", sampled(HOSTILE, "script", "stacked marks", "prototype"))
def test_nothing_in_a_name_is_executed_and_the_page_fits(name: str, open_page: OpenPage, tmp_path: Path) -> None:
    text = HOSTILE[name]
    for label in ("random", "1000"):
        publish(tmp_path, text, checkpoint=label, own_arrays=lambda steps: arrays_named(text, steps), videos=0)
    for width in (1280, 390):
        page = open_page(tmp_path, viewport={"width": width, "height": 800})
        dialogs: list[str] = []
        page.on("dialog", lambda dialog, told=dialogs: told.append(dialog.message) or dialog.dismiss())
        look_around(page)
        assert dialogs == []


@pytest.mark.parametrize(("experiment", "label"), NAMES.items(), ids=["long", "right to left", "of objects", "commas"])
def test_names_of_experiments_and_checkpoints_are_shown_and_fit(
    experiment: str, label: str, open_page: OpenPage, tmp_path: Path
) -> None:
    for own in ("1000", label):
        publish(tmp_path, "E-v0", experiment=experiment, checkpoint=own, videos=0)
    for width in (1280, 390):
        page = open_page(tmp_path, viewport={"width": width, "height": 800})
        assert experiment in page.inner_text("body")
        look_around(page)


@pytest.mark.parametrize(
    "name", sampled(["script", "picture", "link", "controls", "very long", "prototype"], "script", "controls")
)
def test_nothing_in_a_link_is_executed(name: str, open_page: OpenPage, data_root: Path) -> None:
    for where in (
        quote(HOSTILE[name]),
        f"Other/{quote(HOSTILE[name])}?obs={quote(HOSTILE[name])}&sort={quote(HOSTILE[name])}",
    ):
        page = open_page(data_root, where)
        assert fits(page)
        check_nothing_ran(page)
