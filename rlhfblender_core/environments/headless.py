"""Rendering on machines without a screen: settings of SDL, pyglet and MuJoCo, and what their failures mean.

These libraries take their settings from environment variables when they are imported, so this is the one place of
the core that touches ``os.environ``.
"""

import ctypes
import os
import sys
from collections.abc import MutableMapping

from rlhfblender_core.errors import EnvironmentNotUsableError, one_line

#: MuJoCo's ways to render without a screen, the faster first, and the library each needs.
_MUJOCO_BACKENDS = (("egl", "libEGL.so.1"), ("osmesa", "libOSMesa.so.8"), ("osmesa", "libOSMesa.so"))

NO_MUJOCO_RENDERING = (
    "MuJoCo can't render on this machine: it has no screen and neither EGL nor OSMesa works. "
    "Install Debian's libegl1 (or libosmesa6), or pass --no-render."
)


def prepare_headless(variables: MutableMapping[str, str] | None = None) -> None:
    """Sets what a machine without a screen needs, where the user hasn't; to be called before pygame or MuJoCo load.

    On a machine with a screen nothing changes but pygame's greeting, which is off.

    Args:
        variables: the environment variables to change; default those of this process.
    """
    variables = os.environ if variables is None else variables
    variables.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if _has_screen(variables):
        return
    # Not "dummy": highway-env's frames are all black with it.
    variables.setdefault("SDL_VIDEODRIVER", "offscreen")
    variables.setdefault("SDL_AUDIODRIVER", "dummy")
    variables.setdefault("PYGLET_HEADLESS", "True")
    if "MUJOCO_GL" not in variables:
        backend = _mujoco_backend()
        if backend is not None:
            variables["MUJOCO_GL"] = backend


def check_mujoco_rendering(env: object) -> None:
    """Refuses a MuJoCo environment which could only fail at its first frame.

    Args:
        env: the unwrapped environment.

    Raises:
        EnvironmentNotUsableError: it draws with MuJoCo, and there is neither a screen nor an off-screen library.
    """
    if "MUJOCO_GL" in os.environ or _has_screen(os.environ):
        return
    if any(hasattr(sys.modules.get(cls.__module__), "mujoco") for cls in type(env).__mro__):
        raise EnvironmentNotUsableError(NO_MUJOCO_RENDERING)


def render_failure(env_id: str, error: BaseException) -> EnvironmentNotUsableError | None:
    """What an exception raised by ``env.render()`` says about the machine; None if it is the environment's own.

    Some libraries find out at the first frame only: MuJoCo that it has no OpenGL, the classic environments that
    pygame is missing.
    """
    kind = type(error)
    root = kind.__module__.partition(".")[0]
    if (root, kind.__name__) == ("mujoco", "FatalError") or root in ("OpenGL", "glfw") or _is_missing_gl(error):
        return EnvironmentNotUsableError(f"{NO_MUJOCO_RENDERING} ({one_line(error):.200})")
    if isinstance(error, ImportError) or kind.__name__ == "DependencyNotInstalled":
        return EnvironmentNotUsableError(
            f"{env_id} can't render: {one_line(error):.200}. Install what is missing, or pass --no-render."
        )
    return None


def _has_screen(variables: MutableMapping[str, str]) -> bool:
    # Windows and macOS draw without such variables.
    return not sys.platform.startswith("linux") or any(variables.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _mujoco_backend() -> str | None:
    return next((backend for backend, library in _MUJOCO_BACKENDS if _is_loadable(library)), None)


def _is_loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _is_missing_gl(error: BaseException) -> bool:
    # PyOpenGL without its library: "'NoneType' object has no attribute 'eglQueryString'"; MuJoCo without a device:
    # "Cannot initialize a EGL device display"; Gymnasium without any: "No OpenGL backend could be imported".
    text = str(error)
    return any(word in text for word in ("eglQuery", "EGL device", "OSMesa", "OpenGL backend", "OpenGL context"))
