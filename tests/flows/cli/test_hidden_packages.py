"""A command's folder hides nobody's packages: an environment that imports ``register`` or ``tables`` gets its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.soak import sampled

REPOSITORY = Path(__file__).parents[3]
ENVIRONMENT = """
import gymnasium, numpy, {package}
from tests.support.soak import sampled

class Env(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {{"render_modes": []}}

    def __init__(self, render_mode=None):
        self.origin = {package}.ORIGIN

    def reset(self, *, seed=None, options=None):
        return numpy.zeros(1, "float32"), {{"origin": self.origin}}

    def step(self, action):
        return numpy.zeros(1, "float32"), 1.0, True, False, {{"origin": self.origin}}
"""


@pytest.mark.parametrize("package", sampled(["register", "export", "tables", "process"], "register", "tables"))
def test_an_environments_own_package_is_imported_by_the_command_and_its_workers(package: str, tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / f"{package}.py").write_text('ORIGIN = "its own"\n')
    (tmp_path / "modules" / "hiding_env.py").write_text(ENVIRONMENT.format(package=package))
    flags = ("--env", "Hiding-v0", "--env-gym-entrypoint", "hiding_env:Env")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "flows" / "register.py", *flags, "--data-root", tmp_path / "data"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'modules'}{os.pathsep}{REPOSITORY}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
