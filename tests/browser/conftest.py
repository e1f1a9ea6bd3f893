"""A real Chromium. Screenshots are left in pytest's output folder (``--basetemp``)."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.gallery import INDEX_PATH, write_gallery
from tests.support.gallery_page import OpenPage, Page
from tests.support.synthetic import Synthetic

_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


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
