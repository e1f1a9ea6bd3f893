"""Use cases of the library in processes of their own, killed at a random one of the changes that they make.

What is counted are changes to disks and statements to SQLite: a kill hits the moments between them, however busy the
machine is.
"""

import multiprocessing
import os
import signal
import sqlite3
import sqlite3.dbapi2
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhfblender_core.workers.processes import start_fork_server

_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "subprocess.Popen"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CONNECT = sqlite3.connect
KILLED = -signal.SIGKILL


class _Counter:
    """Counts changes; kills its process group at one of them."""

    def __init__(self, last: int | None) -> None:
        self.count = 0
        self._last = last

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and (arguments[2] or 0) & _WRITING):
            self._seen()

    def connect(self, *arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = _CONNECT(*arguments, **options)
        connection.set_trace_callback(self._seen)
        return connection

    def _seen(self, *_: object) -> None:
        self.count += 1
        if self.count == self._last:
            os.killpg(0, signal.SIGKILL)


def _run(deed: Callable[[], object], temporary: Path, last: int | None, counted: Any) -> None:
    os.setsid()
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    counter = _Counter(last)
    sys.addaudithook(counter.hook)
    sqlite3.connect = sqlite3.dbapi2.connect = counter.connect  # type: ignore[assignment]
    try:
        deed()
    except BaseException:
        temporary.with_name(f"{os.getpid()}.txt").write_text(traceback.format_exc())
        raise
    finally:
        counted.value = counter.count


@dataclass(frozen=True)
class Running:
    """A deed that was started."""

    process: Any
    temporary: Path
    counted: Any

    def wait(self) -> tuple[int, int]:
        """Exit code, and how many changes were made if it wasn't killed.

        Raises:
            AssertionError: the deed raised; with its traceback.
        """
        self.process.join(300)
        code = self.process.exitcode
        if code not in (0, KILLED):
            raise AssertionError(self.temporary.with_name(f"{self.process.pid}.txt").read_text())
        return code, self.counted.value


def start(deed: Callable[[], object], temporary: Path, last: int | None = None) -> Running:
    """Starts a deed, to be killed at a change.

    Args:
        deed: the call; travels to the process.
        temporary: folder that it takes for this machine's temporary files.
        last: number of the change at which it is killed; None to let it end.
    """
    temporary.mkdir(exist_ok=True)
    start_fork_server(trained=False)  # with what is imported there, a process is started at once
    context = multiprocessing.get_context("forkserver")
    counted = context.Value("q", 0)
    process = context.Process(target=_run, args=(deed, temporary, last, counted))
    process.start()
    return Running(process, temporary, counted)


def run(deed: Callable[[], object], temporary: Path, last: int | None = None) -> tuple[int, int]:
    """The same, and waits for its end; see :meth:`Running.wait`."""
    return start(deed, temporary, last).wait()
