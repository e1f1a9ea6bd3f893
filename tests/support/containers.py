"""The image of deployments/Containerfile: built by a real engine where one can be started, else step by step.

``RLHFBLENDER_TESTS_ROOT_FOLDER`` names a bare Debian folder that is there already; ``RLHFBLENDER_TESTS_DOCKER_HOST`` an
engine that has the image already.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container_steps import Image
from tests.support.docker_engine import DockerImage, built_image, can_start

REPOSITORY = Path(__file__).parents[2]
CONTAINERFILE = REPOSITORY / "deployments" / "Containerfile"

needs_containers = [
    pytest.mark.soak,  # downloads a gigabyte
    pytest.mark.xdist_group("containers"),
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="containers are made by root here"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="there is no debootstrap"),
]


def pip_settings() -> dict[str, str]:
    """How this machine's pip finds packages."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = dict(line.partition("=")[::2] for line in listed.stdout.splitlines())
    return {name.rpartition(".")[2]: value.strip("'\"") for name, value in sorted(settings.items())}


def _mounts(settings: dict[str, str]) -> tuple[Path, ...]:
    """The files and folders that the settings name."""
    words = [word.removeprefix("file://") for value in settings.values() for word in value.replace("\\n", " ").split()]
    there = {Path(word) for word in words if word.startswith("/") and Path(word).exists()}
    # A local index refers to files beside it.
    return tuple(sorted({path.parent if path.name == "simple" else path for path in there}))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The image; containers of it are started and checked alike, whoever made it."""
    there = os.environ.get("RLHFBLENDER_TESTS_ROOT_FOLDER")
    if address := os.environ.get("RLHFBLENDER_TESTS_DOCKER_HOST"):
        yield DockerImage(address)
        return
    folder = tmp_path_factory.mktemp("container")
    if can_start(folder):
        with built_image(folder, CONTAINERFILE, REPOSITORY, pip_settings(), Path(there) if there else None) as built:
            yield built
    else:
        settings = pip_settings()
        arguments = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()}
        steps = Image(Path(there or folder / "root"), REPOSITORY, _mounts(settings), arguments)
        steps.build(CONTAINERFILE)
        yield steps
    shutil.rmtree(folder)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A folder of the container's user, to be mounted at /data."""
    folder = tmp_path / "volume"
    folder.mkdir()
    shutil.chown(folder, 1000, 1000)
    for parent in [*folder.parents][:4]:
        parent.chmod(parent.stat().st_mode | 0o055)
    return folder
