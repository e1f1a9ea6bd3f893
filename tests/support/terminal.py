"""What a command prints for people."""

import re


def complaints(err: str) -> list[str]:
    """Lines on standard error but for those that tell how far a run got, which a slow machine prints."""
    return [line for line in err.splitlines() if not re.fullmatch(r"\d+/\d+ episodes · .*", line)]
