"""How messages for people are worded."""


def counted(number: int, noun: str) -> str:
    """``1 episode``, ``1,000 episodes``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
