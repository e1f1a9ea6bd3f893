"""Every ``python flows/….py`` in README and docs is a command that its parser takes."""

import contextvars
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from flows.cli.arguments import make_parser

REPOSITORY = Path(__file__).parents[3]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(page.name, line) for line in lines if re.search(r"python (flows/\w+\.py)", line)]
    return found


def test_each_page_has_commands() -> None:
    assert {page for page, _ in commands()} >= {"README.md", "export.md", "import.md", "gallery.md", "storage.md"}


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda text: text[:60])
def test_the_command_is_one(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    script = next(index for index, word in enumerate(words) if word.startswith("flows/"))
    name = Path(words[script]).stem
    function = getattr(import_module(f"flows.{name}"), name)
    parser = make_parser(getattr(function, "fn", function), "")
    # The flags that say where the data is are noted for what is said later; that is another test's.
    contextvars.copy_context().run(parser.parse_args, words[script + 1 :])
