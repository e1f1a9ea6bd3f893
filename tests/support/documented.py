"""Commands in the project's documents."""

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def commands(document: str) -> list[list[str]]:
    """Words of each command in the document's console blocks, comments left out."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [command for command in words if command]


def of(program: str, document: str) -> list[list[str]]:
    """The arguments of each of the program's commands."""
    found = [command[1:] for command in commands(document) if command[0] == program]
    assert found, f"{document} has no command {program}"
    return found
