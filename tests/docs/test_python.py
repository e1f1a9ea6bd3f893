"""docs/python.md as a reader would type it, and the notebook, which is the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.documented import REPOSITORY

PAGE, NOTEBOOK = REPOSITORY / "docs" / "python.md", REPOSITORY / "docs" / "episodes.ipynb"


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def run(script: str, folder: Path) -> str:
    (folder / "typed.py").write_text(script, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "typed.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_the_page_runs_from_top_to_bottom(tmp_path: Path) -> None:
    printed = run("\n".join(blocks(PAGE)), tmp_path)
    assert "5 made" in printed
    assert "CartPole-v1_random_experiment/random/0" in printed


def test_the_readme_s_lines_run(tmp_path: Path) -> None:
    (lines,) = blocks(REPOSITORY / "README.md")
    assert run(lines, tmp_path).splitlines()[0].startswith("5 ")


def test_the_notebook_is_the_page() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code == [block.rstrip("\n") for block in blocks(PAGE)], "python docs/make_notebook.py writes it again"
