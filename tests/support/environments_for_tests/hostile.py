"""An environment that does to its process what environments do: by mistake, by their libraries, or on purpose."""

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from tests.support.environments_for_tests.counting import Counting


class BadTextError(Exception):
    def __str__(self):
        raise ValueError("no text")


class OwnBase(BaseException):
    pass


def _raise(error):
    raise error


def _fork_and_return():
    os.fork()


def _fork_child_that_stays():
    if os.fork() == 0:
        time.sleep(2)
        os._exit(0)


def _close_descriptors(first):
    os.closerange(first, 200)


def _limit(what, value):
    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))


def _leave_folder(folder):
    os.chdir(folder)


def _removed_folder():
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    folder.rmdir()


def _write_to(stream_name):
    stream = getattr(sys, stream_name)
    for _ in range(2000):
        stream.write("\x1b[2J\x1b]0;owned\x07" * 10)


def _close(name):
    getattr(sys, name).close()


def _replace(name, value):
    setattr(sys, name, value)


def _thread(target, *, daemon):
    threading.Thread(target=target, daemon=daemon).start()


def _forever():
    while True:
        time.sleep(0.2)


def _segfault():
    ctypes.string_at(0)


def _recurse():
    _recurse()


def _ignore(*numbers):
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _new_session():
    with contextlib.suppress(OSError):
        os.setsid()


#: What is done, by name.
DEEDS = {
    "nothing": lambda: None,
    "os._exit(0)": lambda: os._exit(0),
    "os._exit(7)": lambda: os._exit(7),
    "os.abort": os.abort,
    "os.execv": lambda: os.execv("/bin/true", ["true"]),
    "os.execlp": lambda: os.execlp("true", "true"),
    "sys.exit()": sys.exit,
    "sys.exit(0)": lambda: sys.exit(0),
    "sys.exit text": lambda: sys.exit("bye"),
    "libc _exit": lambda: ctypes.CDLL(None)._exit(0),
    "libc exit": lambda: ctypes.CDLL(None).exit(3),
    "segmentation fault": _segfault,
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: (signal.signal(signal.SIGTERM, signal.SIG_DFL), os.kill(os.getpid(), signal.SIGTERM)),
    "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
    "killpg SIGKILL": lambda: os.killpg(os.getpgrp(), signal.SIGKILL),
    "killpg SIGTERM": lambda: os.killpg(0, signal.SIGTERM),
    "killpg SIGINT": lambda: os.killpg(0, signal.SIGINT),
    "kill of the group": lambda: os.kill(0, signal.SIGKILL),
    "kill of the parent": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "SIGHUP": lambda: os.kill(os.getpid(), signal.SIGHUP),
    "SIGALRM": lambda: (signal.alarm(1), time.sleep(3)),
    "SIGPIPE": lambda: (signal.signal(signal.SIGPIPE, signal.SIG_DFL), os.kill(os.getpid(), signal.SIGPIPE)),
    "Exception": lambda: _raise(Exception("x")),
    "no message": lambda: _raise(RuntimeError()),
    "KeyboardInterrupt": lambda: _raise(KeyboardInterrupt()),
    "GeneratorExit": lambda: _raise(GeneratorExit()),
    "StopIteration": lambda: _raise(StopIteration()),
    "CancelledError": lambda: _raise(asyncio.CancelledError()),
    "BaseException": lambda: _raise(OwnBase("base")),
    "MemoryError": lambda: _raise(MemoryError()),
    "RecursionError": _recurse,
    "AssertionError": lambda: _raise(AssertionError()),
    "BrokenPipeError": lambda: _raise(BrokenPipeError(32, "Broken pipe")),
    "error without text": lambda: _raise(BadTextError()),
    "error with escapes": lambda: _raise(RuntimeError("\x1b[2J\x1b]0;owned\x07 lost")),
    "endless error": lambda: _raise(RuntimeError("x" * 5_000_000)),
    "error of an odd class": lambda: _raise(type("Lies\x1b[2J\n", (Exception,), {})("lost")),
    "error of bytes": lambda: _raise(ValueError(b"\xff\x00")),
    "huge allocation": lambda: np.ones(1 << 50),
    "memory limit": lambda: (_limit(resource.RLIMIT_AS, 1 << 31), np.ones(1 << 32)),
    "small stacks": lambda: _limit(resource.RLIMIT_STACK, 1 << 14),
    "no more files": lambda: _limit(resource.RLIMIT_NOFILE, 3),
    "fork": _fork_and_return,
    "fork that stays": _fork_child_that_stays,
    "thread": lambda: _thread(_forever, daemon=False),
    "daemon thread": lambda: _thread(_forever, daemon=True),
    "thread that raises": lambda: _thread(lambda: _raise(RuntimeError("in a thread")), daemon=True),
    "subprocess": lambda: subprocess.Popen(["sleep", "2"]),
    "close standard streams": lambda: [os.close(number) for number in (0, 1, 2)],
    "close descriptors": lambda: _close_descriptors(3),
    "print escapes": lambda: _write_to("stdout"),
    "print escapes to stderr": lambda: _write_to("stderr"),
    "write to descriptor 1": lambda: os.write(1, b"\x1b[2J"),
    "stdout is None": lambda: _replace("stdout", None),
    "stdout is closed": lambda: _close("stdout"),
    "stderr is no stream": lambda: _replace("stderr", SimpleNamespace()),
    "chdir": lambda: _leave_folder("/"),
    "removed folder": _removed_folder,
    "ignores SIGTERM": lambda: _ignore(signal.SIGTERM, signal.SIGHUP),
    "SIGTERM raises": lambda: signal.signal(signal.SIGTERM, lambda *_: _raise(RuntimeError("not me"))),
    "changes umask": lambda: os.umask(0o777),
    "clears variables": os.environ.clear,
    "warns": lambda: warnings.warn("\x1b[2J", stacklevel=1),
    "warnings as errors": lambda: warnings.simplefilter("error"),
    "no garbage collection": gc.disable,
    "priority": lambda: os.nice(1),
    "new session": _new_session,
    "recursion limit": lambda: sys.setrecursionlimit(200),
    "seeds global generators": lambda: np.random.seed(1),
    "numpy raises": lambda: np.seterr(all="raise"),
    "excepthook": lambda: _replace("excepthook", lambda *_: os._exit(0)),
}


class Hostile(Counting):
    """Does its deed in the episode of a seed, at one of its methods."""

    def __init__(self, deed="nothing", of_seed=None, at="step", **kwargs):
        super().__init__(**kwargs)
        self.deed, self.of_seed, self.at = deed, of_seed, at

    def reset(self, *, seed=None, options=None):
        found = super().reset(seed=seed, options=options)
        self._do_at("reset")
        return found

    def step(self, action):
        if self.count == 2:
            self._do_at("step")
        return super().step(action)

    def render(self):
        self._do_at("render")
        return super().render()

    def close(self):
        self._do_at("close")

    def _do_at(self, where):
        if where == self.at and self.of_seed in (None, getattr(self, "seed", None)):
            DEEDS[self.deed]()
