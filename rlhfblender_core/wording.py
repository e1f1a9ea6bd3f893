"""How messages for people are worded."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

_MOST_SHOWN = 8


def counted(number: int, noun: str) -> str:
    """``1 episode``, ``1,000 episodes``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What a person may have meant by a name that isn't known, as a sentence."""
    names = list(known)
    close = get_close_matches(name, names, 1)
    if close:
        return f"Did you mean {close[0]!r}?"
    shown = ", ".join(names[:_MOST_SHOWN]) + (", …" if len(names) > _MOST_SHOWN else "")
    return f"There are: {shown or 'none'}."


class InWords(ABC):
    """A result that says what came of it where it is printed, and where a notebook's cell ends with it."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """In a line, or a few."""

    def __str__(self) -> str:
        return self.summary

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:  # noqa: FBT001 (IPython's protocol)
        printer.text(str(self))


def in_markdown(text: str) -> str:
    """Text of others as Markdown shows it: no markup, no picture from elsewhere, one line."""
    kept = "".join(f"\\{character}" if character in "\\`*_{}[]<>#|" else character for character in text)
    return " ".join(kept.split())
