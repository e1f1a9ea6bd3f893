"""The real command, started as a person or a shell would."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import image, volume  # noqa: F401 (fixtures)

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Command:
    """``python flows/generate.py`` or another flow's file, from another folder than the repository's."""

    folder: Path
    environment: dict[str, str]
    file: str = "generate.py"

    def start(self, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(REPOSITORY / "flows" / self.file), *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=280)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def alone(tmp_path: Path) -> Command:
    """The command on a machine without a Prefect server."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return Command(folder, {"PYTHONPATH": str(REPOSITORY), "PREFECT_HOME": str(tmp_path / "prefect")})


@pytest.fixture
def command(alone: Command, prefect_server: str) -> Command:
    """The command with the session's Prefect server, which saves the time to start one."""
    return Command(alone.folder, {**alone.environment, "PREFECT_API_URL": prefect_server})


@pytest.fixture
def no_torch(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """Environment variables with which importing torch or Stable-Baselines3 fails, in every process."""
    for name in ("torch", "stable_baselines3", "sb3_contrib"):
        package = tmp_path / "blocked" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError(f'{__name__} was imported')")
    return lambda: {"PYTHONPATH": f"{tmp_path / 'blocked'}{os.pathsep}{REPOSITORY}"}
