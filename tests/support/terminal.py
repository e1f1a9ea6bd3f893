"""What a command prints for people."""

import re


def complaints(err: str) -> list[str]:
    """Lines on standard error but for those that tell how far a run got or that it takes long: a slow machine's."""
    slow = re.compile(r"\d+/\d+ episodes · .*|No (episode has ended|shard has come back) .*for .*")
    return [line for line in err.splitlines() if not slow.fullmatch(line)]
