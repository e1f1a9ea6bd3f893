"""docs/architecture.md: its picture is that of today's imports, and the files that it names exist."""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_picture_is_drawn_from_todays_imports(tmp_path: Path) -> None:
    script = "import sys; sys.path.insert(0, 'docs'); import draw_architecture as d\nsys.stdout.write(d.draw())"
    drawn = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    current = (REPOSITORY / "docs/images/architecture.svg").read_text(encoding="utf-8")
    assert drawn.stdout == current, "out of date: run `python docs/draw_architecture.py`"


def test_the_modules_that_are_named_exist() -> None:
    text = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)+\w+\.py)`", text)
    assert len(named) > 10
    roots = (REPOSITORY, REPOSITORY / "rlhfblender_core")
    assert [path for path in named if not any((root / path).is_file() for root in roots)] == []
