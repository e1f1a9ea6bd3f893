"""What a person does next, as lines that can be pasted where one stands."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_FLOWS = Path(__file__).parents[1]
#: Commands as the core names them, in backticks, their words quoted for a shell.
_NAMED = re.compile(r"`python flows/(\w+)\.py((?:[^`'\"]|'[^']*'|\"[^\"]*\")*)`")
#: Commands that read the data root alone.
_WITHOUT_REGISTRY = ("gallery",)

#: The flags that say where the data is, as this command was given them; None before there are any.
_given: ContextVar[Mapping[str, str] | None] = ContextVar("given_flags", default=None)


def note_flag(name: str, shown: str) -> None:
    """Notes a flag that says where the data is, for the commands that are named from here on.

    Args:
        name: ``--data-root``.
        shown: its value, without passwords.
    """
    _given.set({**(_given.get() or {}), name: shown})


@contextmanager
def flags_noted(flags: Mapping[str, str]) -> Iterator[None]:
    """Within it, a flow run that no command line started names commands with its own parameters.

    Args:
        flags: as :func:`note_flag` takes them.
    """
    if _given.get() is not None:  # a command's, or those of the run that this one is part of
        yield
        return
    token = _given.set(flags)
    try:
        yield
    finally:
        _given.reset(token)


def path_from_here(path: str) -> str:
    """A local path below the current folder from there, any other whole."""
    whole, here = Path(path), Path.cwd()
    is_below = whole.is_absolute() and whole.is_relative_to(here)
    return str(whole.relative_to(here)) if is_below else path


def lines_from_here(text: str) -> str:
    """The text, its absolute paths below the current folder written from there."""
    here = os.path.join(Path.cwd(), "")  # noqa: PTH118 (the separator at its end is what a Path drops)
    return text if here == os.sep else re.sub(rf"(?<![^\s'\"=(]){re.escape(here)}", "", text)


def command(flow: str, *words: str) -> str:
    """``python flows/gallery.py --exp e --data-root d``, with this interpreter, this project's file, the data's place.

    Args:
        flow: name of the module.
        words: its arguments, not quoted yet.
    """
    return f"{_start(flow)}{_with_place(flow, ''.join(f' {shlex.quote(word)}' for word in words))}"


def as_typed(text: str) -> str:
    """The text, the commands in it as they are typed here: see :func:`command`."""
    return _NAMED.sub(lambda found: f"`{_start(found[1])}{_with_place(found[1], found[2])}`", text)


def with_place(text: str) -> str:
    """The text, the commands in it with the place of the data, for whoever isn't at this terminal."""
    return _NAMED.sub(lambda found: f"`python flows/{found[1]}.py{_with_place(found[1], found[2])}`", text)


def _with_place(flow: str, words: str) -> str:
    """The words of a command, and the flags given that aren't among them."""
    given = {name: value for name, value in (_given.get() or {}).items() if f" {name} " not in words}
    if flow in _WITHOUT_REGISTRY:
        given.pop("--database-url", None)
    # With "=", a folder whose name begins with a dash is no flag.
    return words + "".join(
        f" {name}{'=' if value[0] == '-' else ' '}{shlex.quote(value)}" for name, value in given.items()
    )


def _start(flow: str) -> str:
    return shlex.join([_python(), path_from_here(str(_FLOWS / f"{flow}.py"))])


def _python() -> str:
    """Not resolved: the link in a virtual environment is what makes it one."""
    is_on_path = shutil.which("python") == sys.executable
    return "python" if is_on_path else path_from_here(sys.executable)
