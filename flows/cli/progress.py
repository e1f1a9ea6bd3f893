"""What a person sees while a run is under way: a live line on a terminal, plain lines elsewhere."""

import contextlib
import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flows.cli.next_commands import as_typed
from flows.cli.tables import print_report
from rlhfblender_core.report.summary import Report
from rlhfblender_core.workers.progress import read_progress

_REFRESH_SECONDS = 0.25
#: Without a terminal: a line now and then, so that a log file stays readable.
_PLAIN_SECONDS = 10.0
#: Without an episode's end, before that is worth a note.
_LONG_SECONDS = 30.0


class Display(Protocol):
    """Shows a run's progress."""

    def watch(self, folder: Path, episodes: int, of: str = "") -> contextlib.AbstractContextManager[None]:
        """Shows what is counted into the folder, of so many episodes, until the context is left.

        Args:
            folder: of the counters.
            episodes: how many there will be.
            of: checkpoint that they are of, where there is more to come.
        """

    def count(self, what: str, total: int | None) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Shows how many of so many steps have ended; gives what is to be called at each end. None: shows none."""

    def say(self, line: str) -> None:
        """Shows a line while the run goes on."""

    def show(self, report: Report) -> None:
        """Shows what the run achieved."""


class NoDisplay:
    """Shows nothing: a worker's run is watched in Prefect's UI."""

    @contextlib.contextmanager
    def watch(self, folder: Path, episodes: int, of: str = "") -> Iterator[None]:  # noqa: ARG002 (it shows nothing)
        """See :class:`Display`."""
        yield

    @contextlib.contextmanager
    def count(self, what: str, total: int | None) -> Iterator[Callable[[], None]]:  # noqa: ARG002 (it shows nothing)
        """See :class:`Display`."""
        yield lambda: None

    def say(self, line: str) -> None:
        """See :class:`Display`."""

    def show(self, report: Report) -> None:
        """See :class:`Display`."""


#: The display of the command line that started the flow in this context.
current_display: ContextVar[Display] = ContextVar("current_display", default=NoDisplay())  # noqa: B039 (it has no state)


@contextlib.contextmanager
def checking() -> Iterator[None]:
    """Says once that the checks before the episodes take long, if they do: an environment's reset may never end."""
    line = (
        f"Nothing is rolled out yet after {_LONG_SECONDS:.0f} s: the checkpoints are being read, or the environment is "
        "made, reset and stepped once, which never ends in some. Ctrl-C stops it."
    )
    timer = threading.Timer(_LONG_SECONDS, current_display.get().say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _copy_of(stream: TextIO) -> TextIO:
    try:
        copy = os.dup(stream.fileno())  # open as long as the command
        return os.fdopen(copy, "w", encoding=stream.encoding, errors=stream.errors, closefd=False)
    except (OSError, ValueError, AttributeError):  # closed, or none of the system's
        return stream


class TerminalDisplay:
    """A live line on a terminal, plain lines elsewhere; on standard error, so that results can be piped."""

    def __init__(self) -> None:
        # Standard error as it is now: while environments are made and reset, it leads nowhere.
        self._stream = _copy_of(sys.stderr)
        self._console = Console(file=self._stream)
        self.has_shown = False

    def say(self, line: str) -> None:
        """See :class:`Display`."""
        self._console.print(as_typed(line), soft_wrap=True, highlight=False, markup=False)

    def show(self, report: Report) -> None:
        """See :class:`Display`."""
        print_report(report, Console())
        self.has_shown = True

    @contextlib.contextmanager
    def count(self, what: str, total: int | None) -> Iterator[Callable[[], None]]:
        """See :class:`Display`."""
        if not total:
            yield lambda: None
            return
        if not self._console.is_terminal:
            yield _PlainCount(what, total, self._stream).advance
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("left"), console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)

    @contextlib.contextmanager
    def watch(self, folder: Path, episodes: int, of: str = "") -> Iterator[None]:
        """See :class:`Display`."""
        stop = threading.Event()
        show = self._show_live if self._console.is_terminal else self._show_plain
        thread = threading.Thread(target=show, args=(folder, episodes, of, stop), name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _show_live(self, folder: Path, episodes: int, of: str, stop: threading.Event) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("episodes · {task.fields[rate]} ·"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        rate, endless = _Rate(), _EndlessEpisodes()
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(f"Rolling out {of}".rstrip(), total=episodes, rate="…")
            while not stop.wait(_REFRESH_SECONDS):
                steps, done = read_progress(folder)
                progress.update(task, completed=min(done, episodes), rate=rate.text(steps, done))
                if note := endless.note(steps, done):
                    self.say(note)

    def _show_plain(self, folder: Path, episodes: int, of: str, stop: threading.Event) -> None:
        rate, endless, told = _Rate(), _EndlessEpisodes(), time.monotonic()
        heading = f"{of}: " if of else ""
        while not stop.wait(min(_REFRESH_SECONDS, _PLAIN_SECONDS)):
            steps, done = read_progress(folder)
            shown = f"{heading}{min(done, episodes)}/{episodes} episodes · {rate.text(steps, done)}"
            if note := endless.note(steps, done):
                self.say(note)
            if time.monotonic() - told >= _PLAIN_SECONDS:
                told = time.monotonic()
                print(shown, file=self._stream, flush=True)


class _PlainCount:
    """A line now and then about how many of so many steps have ended, and how long the others will take."""

    def __init__(self, what: str, total: int, stream: TextIO) -> None:
        self._what, self._total, self._done, self._stream = what, total, 0, stream
        self._started = self._told = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._told < _PLAIN_SECONDS or self._done == self._total:
            return
        self._told = now
        left = (now - self._started) / self._done * (self._total - self._done)
        shown = str(datetime.timedelta(seconds=round(left)))
        print(f"{self._what}: {self._done}/{self._total} · {shown} left", file=self._stream, flush=True)


class _EndlessEpisodes:
    """Whether no episode has ended for long, which is said once: some environments never end one."""

    def __init__(self) -> None:
        self._done = 0
        self._since = time.monotonic()
        self._is_told = False

    def note(self, steps: int, done: int) -> str | None:
        now = time.monotonic()
        if done != self._done:
            self._done, self._since = done, now
        if self._is_told or now - self._since < _LONG_SECONDS:
            return None
        self._is_told = True
        # A cluster's workers count nothing: its episodes are heard of by the shard.
        what = f"No episode has ended ({steps:,} steps so far)" if steps else "No shard has come back"
        advice = "An environment that never ends an episode needs --max-steps-per-episode."
        return f"{what} for {_LONG_SECONDS:.0f} s. {advice}"


class _Rate:
    """Frames per second since the first frame."""

    def __init__(self) -> None:
        self._started: tuple[float, int] | None = None

    def text(self, steps: int, done: int) -> str:
        now = time.monotonic()
        if self._started is None:
            if steps:
                self._started = (now, steps)
            return "…" if steps or done else "starting"  # a cluster's workers count no steps
        seconds, frames = now - self._started[0], steps - self._started[1]
        return f"{frames / seconds:,.0f} frames/s" if seconds > 0 else "…"
