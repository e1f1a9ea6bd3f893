"""Keeping other people's libraries from talking into our output.

What is silenced: Gymnasium's own ``WARN:`` messages (an old version of an id, a missing version), deprecation
warnings raised inside the libraries named here, banners printed while packages are imported and environments made,
and the Arcade Learning Environment's banner, which C++ writes past Python. Warnings of custom environments stay.
"""

import contextlib
import ctypes
import io
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

#: Gymnasium's logger prefixes every message so, in yellow.
_GYMNASIUM_WARNING = r"(\x1b\[\d+m)?WARN: "

#: Modules whose deprecation notices are meant for their authors (a regular expression, matched at the start).
_NOISY_MODULES = "ale_py|Box2D|glfw|gymnasium|highway_env|minigrid|mujoco|pkg_resources|pygame"

#: Raised while packages are imported or start their engines, in nobody's module.
_ENGINE_WARNINGS = (
    # Box2D's wrapper is made by SWIG. With warnings as errors its import ends in a segmentation fault.
    "builtin type .* has no __module__ attribute",
    # Older versions of pygame, as a plain UserWarning.
    "pkg_resources is deprecated",
    # GLFW's error codes, which MuJoCo's own error follows.
    r"\(655\d\d\) b'",
)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silences the libraries' warnings inside the block; nothing is printed or hidden otherwise.

    Warning filters belong to the whole process, as Python has them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_GYMNASIUM_WARNING)
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=_NOISY_MODULES)
        for message in _ENGINE_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        yield


class _Shared:
    """What the first of several threads begins for the whole process, and the last one ends.

    Each putting back what it found, two threads that overlap would leave the first one's silence behind for good.
    """

    def __init__(self, effect: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._effect = effect
        self._lock = threading.Lock()
        self._inside = 0
        self._begun = contextlib.ExitStack()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._begun.enter_context(self._effect())
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._begun.close()


@contextlib.contextmanager
def _python_nowhere() -> Iterator[None]:
    with quiet_libraries(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _streams_nowhere() -> Iterator[None]:
    _flush_natives()
    kept: dict[int, int] = {}
    with contextlib.suppress(OSError), Path(os.devnull).open("wb") as nowhere:  # no more files, says a limit
        for number in (1, 2):
            with contextlib.suppress(OSError):  # it is closed
                kept[number] = os.dup(number)
                os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        _flush_natives()
        for number, copy in kept.items():
            with contextlib.suppress(OSError):  # an environment has closed it
                os.dup2(copy, number)
                os.close(copy)


def _flush_natives() -> None:
    """Writes out what native code has printed and the C library still holds, as it does where nobody looks on."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # Windows
        ctypes.CDLL(None).fflush(None)


_python, _natives = _Shared(_python_nowhere), _Shared(_streams_nowhere)


@contextlib.contextmanager
def quiet_output() -> Iterator[None]:
    """Like :func:`quiet_libraries`, and what Python code prints inside the block goes nowhere."""
    with _python.entered():
        yield


@contextlib.contextmanager
def quiet_natives() -> Iterator[None]:
    """Like :func:`quiet_output`, and what native code prints past Python goes nowhere: Bullet's banner at each start.

    For all threads: whoever has something to say meanwhile does it by a copy of a stream.
    """
    with _python.entered(), _natives.entered():
        yield


def silence_native_loggers() -> None:
    """Turns off what C and C++ print past Python, of the packages that have been imported.

    The Arcade Learning Environment's banner is printed when the first game is made, before the environment itself sets
    the log level. MuJoCo's warnings about models go to the terminal and into ``MUJOCO_LOG.TXT`` in the current folder,
    unless somebody listens to them.
    """
    ale_py = sys.modules.get("ale_py")
    if ale_py is not None:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    listen = getattr(sys.modules.get("mujoco"), "set_mju_user_warning", None)
    if listen is not None:
        listen(_ignore)


def _ignore(_message: str) -> None:
    """Hears a warning that is meant for a model's author."""
