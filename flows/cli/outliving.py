"""What outlives a command: its first process, which does nothing but wait for the one that does the work.

A command makes environments in its own process while it plans, and rolls them out there with ``--runner inprocess``.
One that ends the process (a segmentation fault, C's ``_exit(0)``) would end the command without a word, and with an
exit code that says success. So the command is a fork, made before anything is loaded, which takes a millisecond; the
first process tells in one line how it ended, where it didn't end by itself. Linux only.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import time
from typing import NoReturn

from rlhfblender_core.errors import printable
from rlhfblender_core.witness import call_witness

#: Places in the page of memory that both processes see: flags, then the id of the environment that was made last.
_LEAVES, _RUNS, _HEARS, _ENV_ID = 0, 1, 2, 3
#: So long the command may take to hear a signal whose sender has sent it to both processes, in seconds.
_HEARD_S = 0.1
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_EXIT_FAILED, _EXIT_WRONG_REQUEST = 1, 2


class _Page:
    """What the command's process notes for the one that outlives it."""

    def __init__(self) -> None:
        self.memory: mmap.mmap | None = None

    def note(self, flag: int) -> None:
        if self.memory is not None:
            self.memory[flag] = 1

    def has(self, flag: int) -> bool:
        return self.memory is not None and self.memory[flag] == 1

    def note_environment(self, env_id: str) -> None:
        if self.memory is not None:
            content = env_id.encode(errors="replace")[:300]
            self.memory[_ENV_ID : _ENV_ID + len(content) + 1] = content + b"\0"

    @property
    def env_id(self) -> str:
        content = b"" if self.memory is None else self.memory[_ENV_ID : _ENV_ID + 301]
        return printable(content.partition(b"\0")[0].decode(errors="replace"))


_page = _Page()


def go_on_in_a_fork() -> None:
    """Goes on in a copy of this process, which hears its signals and dies with it; this one ends as the copy does.

    Does nothing where a debugger or a tracer sits in this process.
    """
    if sys.platform != "linux" or is_traced():
        return
    _page.memory = mmap.mmap(-1, mmap.PAGESIZE)
    told = {*_FORWARDED, signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, told)
    first = os.getpid()
    command = os.fork()
    if command:
        _end_as(_wait_for(command, told), told)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != first:
        os._exit(_EXIT_FAILED)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    call_witness(_page.note_environment)


def is_traced() -> bool:
    """Whether a debugger or a tracer sits in this process."""
    return sys.gettrace() is not None or "pydevd" in sys.modules


def note_run() -> None:
    """Notes that the command has planned, and runs."""
    _page.note(_RUNS)


def note_signal() -> None:
    """Notes that the command has heard a signal."""
    _page.note(_HEARS)


def note_leaving() -> None:
    """Notes that the command ends by itself; for the moment before it does."""
    _page.note(_LEAVES)


def _wait_for(command: int, told: set[signal.Signals]) -> int:
    """The status with which the command ended; what was sent to this process alone is sent to it."""
    while True:
        came = signal.sigwaitinfo(told)
        if came.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(command, os.WNOHANG)
            if ended:
                return status
        elif came.si_code <= 0:  # sent by a process; a terminal sends to all that belong to it
            time.sleep(_HEARD_S)
            if not _page.has(_HEARS):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(command, came.si_signo)


def _end_as(status: int, told: set[signal.Signals]) -> NoReturn:
    code = os.waitstatus_to_exitcode(status)
    if not _page.has(_LEAVES):
        if -code in _FORWARDED:  # before it could handle it
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, told)
        code = _tell(f"exit code {code}" if code >= 0 else signal.Signals(-code).name)
    os._exit(code)


def _tell(how: str) -> int:
    """Tells how the command ended; the exit code."""
    env_id, runs = _page.env_id, _page.has(_RUNS)
    if env_id and not runs:
        line = f"{env_id} ended the process that tried it out ({how}). Correct it, or what it uses."
    elif env_id:
        line = (
            f"{env_id}, or what it uses, ended the process of the command ({how}). What is published stays. Rolled out "
            "by --runner process, such an episode fails alone."
        )
    else:
        line = f"The process of the command ended ({how})."
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(2, f"error: {line}\n".encode())
    return _EXIT_WRONG_REQUEST if env_id and not runs else _EXIT_FAILED
