"""Environments that hold what has to be freed: in the thread that made it, or with the last of those that share it."""

import threading
from pathlib import Path

from tests.support.environments_for_tests.counting import Counting


class Renderer:
    """Notes in which thread it is made, used and freed, as graphics contexts insist on one."""

    def __init__(self, log):
        self.log, self.thread = log, threading.get_ident()
        self.note("made")

    def note(self, what):
        place = "" if threading.get_ident() == self.thread else " elsewhere"
        with Path(self.log).open("a") as file:
            file.write(f"{what}{place}\n")

    def __del__(self):
        self.note("freed")


class BoundToAThread(Counting):
    """Its renderer is freed with the last reference."""

    def __init__(self, log, fails=False, **kwargs):
        super().__init__(**kwargs)
        self.renderer, self.fails = Renderer(log), fails

    def step(self, action):
        if self.fails:
            raise RuntimeError("This environment fails.")
        return super().step(action)

    def render(self):
        self.renderer.note("used")
        return super().render()


class BoundInACycle(BoundToAThread):
    """Its renderer refers back to it, or to another part of its own, so that only the garbage collector frees both."""

    def __init__(self, log, cycle="env", **kwargs):
        super().__init__(log, **kwargs)
        self.renderer.drawn = self if cycle == "env" else self.renderer


class Table:
    """What all environments of a class share."""


_TABLE = Table()


class SharingATable(Counting):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = _TABLE
