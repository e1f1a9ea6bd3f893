"""Names that people choose, and the path segments they become.

Only here is decided which names are allowed. Where files of a name lie is in :mod:`rlhfblender_core.layout`.
"""

import re

from rlhfblender_core.errors import InvalidNameError

#: Bytes in UTF-8. File systems allow 255; temporary names and extensions need some of them.
MAX_NAME_BYTES = 128

_ALLOWED = re.compile(r"[\w.+=@()\[\], -]+")
#: Names of devices on Windows, whatever their extension.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")


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
        shown = name if len(name) <= 40 else f"{name[:37]}..."
        raise InvalidNameError(
            f"The {what} name {shown!r} {problem}. Use 1 to {MAX_NAME_BYTES} letters, digits, '-', '_', '.' or spaces."
        )
    return name


def path_segment(name: str, what: str = "environment") -> str:
    """The folder name for an id that may hold ``/`` or ``:``: ``ALE/Pong-v5`` becomes ``ALE-Pong-v5``.

    Raises:
        InvalidNameError: the result would not be a safe path segment (see :func:`checked_name`).
    """
    if "/" in name and any(part in ("", ".", "..") for part in name.split("/")):
        raise InvalidNameError(f"The {what} name {name[:40]!r} could leave its folder. Use a plain name.")
    return checked_name(name.replace("/", "-").replace(":", "-"), what)


def _problem(name: str) -> str | None:
    if not name.strip():
        return "is empty"
    if len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        return f"is too long ({len(name)} characters)"
    if "/" in name or "\\" in name:
        return "has a slash, which could leave its folder"
    if name[0] in ".-" or name[-1] in ". " or name[0] == " ":
        return "starts or ends with a character that file systems or shells treat specially"
    if not _ALLOWED.fullmatch(name):
        bad = next(c for c in name if not _ALLOWED.fullmatch(c))
        return f"has the character {bad!r}"
    if _RESERVED.fullmatch(name):
        return "is a reserved device name"
    return None
