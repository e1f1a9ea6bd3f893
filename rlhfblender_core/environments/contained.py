"""What an environment does to the process it lives in, undone: it shares it with whoever asked for episodes.

Not a sandbox: an environment runs with all that its user may do (``SECURITY.md``). What native code does to the
process (a segmentation fault, an exit of its own) is seen from outside, by
:mod:`rlhfblender_core.rollout.lost_workers`.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from rlhfblender_core.lifelines import end_without_lifelines

#: Functions of ``os`` after which this process is no more, or another program.
_ENDINGS = ("_exit", "abort", "execv", "execve")
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")
_STREAMS = ("stdin", "stdout", "stderr")

try:
    import resource
except ImportError:  # Windows
    _LIMITS: tuple[int, ...] = ()
else:
    _KNOWN = ("AS", "CORE", "CPU", "DATA", "FSIZE", "NOFILE", "NPROC", "STACK")  # of these, no system has all
    _LIMITS = tuple(getattr(resource, f"RLIMIT_{name}") for name in _KNOWN if hasattr(resource, f"RLIMIT_{name}"))


class _Contained(threading.local):
    """The process in which this thread is in an environment's hands; None while it isn't."""

    pid: int | None = None


_contained = _Contained()


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Has an environment's calls to end the process raise SystemExit; puts limits, folder, streams and the like back.

    A copy of this process that an environment forked and let return ends here: it would do all the work a second time,
    into the same files. So does a process whose own pipes and sockets the environment has closed.
    """
    outer = _contained.pid
    pid = _contained.pid = os.getpid()
    try:
        with _collection_kept(), _limits_kept(), _umask_kept(), _folder_kept(), _streams_kept(), _signals_kept():
            yield
    finally:
        _contained.pid = outer
        end_forked_copy(pid)
        end_without_lifelines()


def end_forked_copy(pid: int) -> None:
    """Ends this process if it isn't the one of that id but a copy that an environment forked from it."""
    if os.getpid() != pid:
        exit_process(0)


def is_interrupt(error: BaseException) -> bool:
    """Whether the error is a person's Ctrl-C, which only the main thread of a command hears; others are raised."""
    is_main = threading.current_thread() is threading.main_thread() and multiprocessing.parent_process() is None
    return isinstance(error, KeyboardInterrupt) and is_main


@contextlib.contextmanager
def _collection_kept() -> Iterator[None]:
    was_on = gc.isenabled()
    try:
        yield
    finally:
        if was_on:  # some turn it off for speed, and memory would grow with the number of episodes
            gc.enable()


@contextlib.contextmanager
def _limits_kept() -> Iterator[None]:
    before = {what: resource.getrlimit(what) for what in _LIMITS}
    try:
        yield
    finally:
        for what, limits in before.items():
            with contextlib.suppress(OSError, ValueError):  # what was lowered for good stays
                resource.setrlimit(what, limits)


@contextlib.contextmanager
def _umask_kept() -> Iterator[None]:
    before = _umask()
    try:
        yield
    finally:
        os.umask(before)


def _umask() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1], 8) for line in lines if line.startswith("Umask:"))
    except (OSError, StopIteration):  # elsewhere there is no asking without setting, which other threads may notice
        before = os.umask(0o022)
        os.umask(before)
        return before


@contextlib.contextmanager
def _folder_kept() -> Iterator[None]:
    try:
        before = Path.cwd()
    except OSError:  # it was removed: there is nothing to come back to
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(before)


@contextlib.contextmanager
def _streams_kept() -> Iterator[None]:
    before = {name: getattr(sys, name) for name in _STREAMS}
    try:
        yield
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
        for number in range(3):
            _reopen_if_closed(number)


def _reopen_if_closed(number: int) -> None:
    """Has a standard stream's descriptor lead nowhere rather than be the next file that is opened."""
    try:
        os.fstat(number)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # others can't set any
        yield
        return
    numbers = [signal.Signals[name] for name in _SIGNALS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:  # None: not set from Python
                signal.signal(number, handler)


def _refusing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def end(*arguments: Any) -> Any:
        if _contained.pid == os.getpid():
            raise SystemExit(f"the environment called os.{name}")
        return function(*arguments)

    return end


#: As the operating system has it, for those who mean it.
exit_process: Callable[[int], NoReturn] = os._exit

for _name in _ENDINGS:
    setattr(os, _name, _refusing(_name, getattr(os, _name)))
