"""What a person does next, as lines that can be pasted where one stands."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

_FLOWS = Path(__file__).parents[1]


def path_from_here(path: str) -> str:
    """A local path below the current folder from there, any other whole."""
    whole, here = Path(path), Path.cwd()
    is_below = whole.is_absolute() and whole.is_relative_to(here)
    return str(whole.relative_to(here)) if is_below else path


def lines_from_here(text: str) -> str:
    """The text, its absolute paths below the current folder written from there."""
    here = os.path.join(Path.cwd(), "")  # noqa: PTH118 (the separator at its end is what a Path drops)
    return text if here == os.sep else re.sub(rf"(?<![^\s'\"=(]){re.escape(here)}", "", text)


def flags_of(**given: str | None) -> list[str]:
    """The flags of these parameters as they were given; those that weren't are left out."""
    return [word for name, value in given.items() if value for word in (f"--{name.replace('_', '-')}", value)]


def without_registry(flags: Sequence[str]) -> list[str]:
    """These without ``--database-url``, for commands that read the data root alone."""
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return [word for pair in pairs if pair[0] != "--database-url" for word in pair]


def command(flow: str, *words: str) -> str:
    """``python flows/gallery.py --exp e``, with this interpreter and this project's file.

    Args:
        flow: name of the module.
        words: its arguments, not quoted yet.
    """
    return shlex.join([_python(), path_from_here(str(_FLOWS / f"{flow}.py")), *words])


def _python() -> str:
    """Not resolved: the link in a virtual environment is what makes it one."""
    is_on_path = shutil.which("python") == sys.executable
    return "python" if is_on_path else path_from_here(sys.executable)
