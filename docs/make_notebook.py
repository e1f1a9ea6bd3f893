"""Writes docs/episodes.ipynb from docs/python.md: its text as cells of text, its Python as cells of code."""

import json
import re
from pathlib import Path

DOCS = Path(__file__).parent


def main() -> None:
    """Writes the notebook."""
    page = (DOCS / "python.md").read_text(encoding="utf-8")
    cells = []
    for number, part in enumerate(re.split(r"```python\n(.*?)```\n", page, flags=re.DOTALL)):
        if part.strip():
            cells.append(_cell(number, part.strip("\n"), is_code=number % 2 == 1))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (DOCS / "episodes.ipynb").write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _cell(number: int, text: str, *, is_code: bool) -> dict[str, object]:
    cell: dict[str, object] = {"id": f"part-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
    return cell | (
        {"cell_type": "code", "execution_count": None, "outputs": []} if is_code else {"cell_type": "markdown"}
    )


if __name__ == "__main__":
    main()
