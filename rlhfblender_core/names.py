"""Names that people choose, and the path segments they become.

Only here is decided which names are allowed. Where files of a name lie is in :mod:`rlhfblender_core.dataset.layout`.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable

from rlhfblender_core.credentials import without_credentials
from rlhfblender_core.errors import InvalidNameError

#: Bytes in UTF-8. File systems allow 255; temporary names and extensions need some of them.
MAX_NAME_BYTES = 128

_ALLOWED = re.compile(r"[\w.+=@()\[\], -]+")
#: Names of devices on Windows, whatever their extension; superscripts count as digits there.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])\s*(\..*)?")


def checked_name(name: str, what: str) -> str:
    """The name itself, once it is known to be safe as one path segment.

    Args:
        name: what the user wrote.
        what: whose name it is, for the message: ``"experiment"``, ``"project"``.

    Raises:
        InvalidNameError: it is empty, longer than :data:`MAX_NAME_BYTES`, starts with a dot or a dash,
            ends with a dot or a space, or has characters with a meaning in paths.
    """
    problem = _problem(name)
    if problem:
        shown = shorten(name)
        raise InvalidNameError(
            f"The {what} name {shown!r} {problem}. Use 1 to {MAX_NAME_BYTES} letters, digits, '-', '_', '.' or spaces."
        )
    return name


def is_name(name: str) -> bool:
    """Whether :func:`checked_name` takes it: a folder of another name is none of this project's."""
    return _problem(name) is None


def path_segment(name: str, what: str = "environment") -> str:
    """The folder name for an id that may hold ``/`` or ``:``: ``ALE/Pong-v5`` becomes ``ALE-Pong-v5``.

    Raises:
        InvalidNameError: the result would not be a safe path segment (see :func:`checked_name`).
    """
    if "/" in name and any(part in ("", ".", "..") for part in name.split("/")):
        raise InvalidNameError(f"The {what} name {shorten(name)!r} could leave its folder. Use a plain name.")
    return checked_name(name.replace("/", "-").replace(":", "-"), what)


def same_but_for_case(name: str, others: Iterable[str]) -> str | None:
    """One of the others that differs from the name in case only: some file systems make one folder of both."""
    return next((other for other in others if other != name and other.casefold() == name.casefold()), None)


def shorten(text: str, width: int = 40) -> str:
    """The text, cut to ``width`` characters for a message."""
    text = without_credentials(text)  # cut, a password wouldn't be known as one
    return text if len(text) <= width else f"{text[: width - 3]}..."


@functools.lru_cache(256)  # few names, each in the paths of many files
def _problem(name: str) -> str | None:
    """The first thing that is wrong with the name, as the end of a sentence."""
    if not name.strip():
        return "is empty"
    if (composed := unicodedata.normalize("NFC", name)) != name:
        # Two names that look the same, of which some file systems make one folder.
        return f"has accents as characters of their own; write {shorten(composed)!r}, which looks the same"
    bad = next((character for character in name if not _ALLOWED.fullmatch(character)), None)
    checks = {
        f"is too long ({len(name)} characters)": len(name.encode(errors="replace")) > MAX_NAME_BYTES,
        "has a slash, which could leave its folder": "/" in name or "\\" in name,
        "starts or ends with a dot, dash or space": name[0] in ".- " or name[-1] in ". ",
        f"has the character {bad!r}": bad is not None,
        "is a reserved device name": _RESERVED.fullmatch(name) is not None,
    }
    return next((problem for problem, is_wrong in checks.items() if is_wrong), None)
