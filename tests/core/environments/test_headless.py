import os
import subprocess
import sys

import pytest

from rlhfblender_core.environments import headless, prepare_headless, render_failure

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems always have a screen")


@on_linux
def test_machine_without_a_screen_gets_all_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headless, "_is_loadable", lambda library: "EGL" in library)
    variables: dict[str, str] = {}
    prepare_headless(variables)
    assert variables == {
        "PYGAME_HIDE_SUPPORT_PROMPT": "1",
        "SDL_VIDEODRIVER": "offscreen",
        "SDL_AUDIODRIVER": "dummy",
        "PYGLET_HEADLESS": "True",
        "MUJOCO_GL": "egl",
    }


@on_linux
@pytest.mark.parametrize(("library", "backend"), [("libOSMesa.so.8", "osmesa"), ("none", None)])
def test_mujoco_takes_what_the_machine_has(monkeypatch: pytest.MonkeyPatch, library: str, backend: str | None) -> None:
    monkeypatch.setattr(headless, "_is_loadable", lambda name: name == library)
    variables: dict[str, str] = {}
    prepare_headless(variables)
    assert variables.get("MUJOCO_GL") == backend


def test_what_the_user_has_set_stays() -> None:
    names = ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER", "MUJOCO_GL", "PYGLET_HEADLESS", "PYGAME_HIDE_SUPPORT_PROMPT")
    own = dict.fromkeys(names, "mine")
    variables = dict(own)
    prepare_headless(variables)
    assert variables == own


@pytest.mark.parametrize("screen", [{"DISPLAY": ":0"}, {"WAYLAND_DISPLAY": "wayland-0"}])
def test_machine_with_a_screen_keeps_it(screen: dict[str, str]) -> None:
    variables = dict(screen)
    prepare_headless(variables)
    assert variables == screen | {"PYGAME_HIDE_SUPPORT_PROMPT": "1"}


SCRIPT = """
from rlhfblender_core.environments import EnvironmentSpec, describe_environment, headless
from rlhfblender_core.errors import EnvironmentNotUsableError
headless._is_loadable = lambda library: {loadable}
try:
    describe_environment(EnvironmentSpec("Hopper-v5"), render=True, try_out=True)
except EnvironmentNotUsableError as error:
    print(error)
describe_environment(EnvironmentSpec("Hopper-v5"))
"""


@on_linux
@pytest.mark.parametrize(("backend", "loadable"), [(None, False), ("glfw", True)])
def test_mujoco_without_opengl_is_one_line_that_names_the_packages(backend: str | None, loadable: bool) -> None:
    pytest.importorskip("mujoco")
    pytest.importorskip("imageio")
    variables = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MUJOCO_GL")}
    if backend is not None:
        variables["MUJOCO_GL"] = backend
    script = SCRIPT.format(loadable=loadable)
    run = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=False)
    assert run.stdout.startswith("MuJoCo can't render on this machine"), run
    assert all(word in run.stdout for word in ("libegl1", "libosmesa6", "--no-render"))
    assert run.stdout.count("\n") == 1
    assert run.stderr == ""


def test_missing_dependency_at_the_first_frame_is_explained() -> None:
    explained = render_failure("X-v0", ModuleNotFoundError("No module named 'pygame'", name="pygame"))
    assert "X-v0 can't render: ModuleNotFoundError: No module named 'pygame'" in str(explained)
    assert render_failure("X-v0", RuntimeError("own trouble")) is None
