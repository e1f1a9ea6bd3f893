"""Keeping other people's libraries from talking into our output.

What is silenced: Gymnasium's own ``WARN:`` messages (an old version of an id, a missing version), deprecation
warnings raised inside the libraries named here, banners printed while packages are imported and environments made,
and the Arcade Learning Environment's banner, which C++ writes past Python. Warnings of custom environments stay.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator

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


@contextlib.contextmanager
def quiet_output() -> Iterator[None]:
    """Like :func:`quiet_libraries`, and what Python code prints inside the block goes nowhere."""
    with quiet_libraries(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
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
