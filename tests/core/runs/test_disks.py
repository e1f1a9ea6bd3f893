"""Full and read-only disks: one clear line, nothing broken, and the next run completes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhfblender_core.dataset.published import read_published
from rlhfblender_core.errors import StorageNotUsableError
from rlhfblender_core.storage import check_writable, open_data_root
from tests.support import generating
from tests.support.generating import KEY, generate, request
from tests.support.verifying import problems

pytestmark = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0 or sys.platform != "linux", reason="mounting needs root on Linux"
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, 600 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting isn't allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_told_in_one_line_and_the_next_run_completes(small_disk: Path, tmp_path: Path) -> None:
    root = open_data_root(str(small_disk / "data"))
    database = f"sqlite:///{tmp_path / 'registry.db'}"
    generate(root, database, request(1, length=40))
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(1 << 20))
    command = [sys.executable, generating.__file__, str(root.local_folder), database, "--episodes", "8"]
    result = subprocess.run([*command, "--length", "40"], capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert f"The disk {small_disk} is full" in result.stderr
    assert result.stderr.count("\n") == 1
    published = read_published(root, KEY)
    assert all(published.is_complete(n) for n in published.manifests)
    ballast.unlink()
    assert generate(root, database, request(8, length=40)) >= 1
    assert problems(root, database) == []


def test_a_read_only_root_is_told_in_one_line(small_disk: Path, tmp_path: Path) -> None:
    root = open_data_root(str(small_disk / "data"))
    database = f"sqlite:///{tmp_path / 'registry.db'}"
    generate(root, database, request(1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for action in (lambda: check_writable(root), lambda: generate(root, database, request(2))):
        with pytest.raises(StorageNotUsableError, match="can't be used: Read-only file system"):
            action()
    assert problems(root, database) == []
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert generate(root, database, request(2)) == 1
    assert problems(root, database) == []
