"""Functions for worker processes, which import them by name."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from rlhfblender_core.workers.progress import count_progress


def where() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


def add(one: int, two: int = 0) -> int:
    return one + two


def fail(message: str) -> None:
    raise ValueError(message)


def die_once(marker: Path) -> str:
    """Killed by the system the first time, as for want of memory."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def hang(marker: Path) -> None:
    marker.write_text(str(os.getpid()))
    time.sleep(600)


def count(steps: int) -> None:
    count_progress(steps=steps, episodes=1)


def work_on(marker: Path) -> None:
    """Counts steps until it is told to stop."""
    while True:
        count_progress(steps=1)
        marker.touch()
        time.sleep(0.01)


def talk() -> None:
    print("hello")
    print("warning: hello", file=sys.stderr)
    os.write(1, b"hello from C\n")


def environment_variable(name: str) -> str | None:
    """As this process has it."""
    return os.environ.get(name)


def loaded(*modules: str) -> list[str]:
    """Those that this process has imported already."""
    return [module for module in modules if module in sys.modules]
