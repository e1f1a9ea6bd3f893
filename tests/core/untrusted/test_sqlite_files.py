"""What lies beside an SQLite file of somebody's: opening the database removes, reads and waits for nothing of it."""

import contextlib
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core import delete, export, generate, import_data, verify
from rlhfblender_core.errors import RLHFBlenderError

PAGE = 4096
MAGIC = bytes.fromhex("d9d505f920a163d7")


def journal_naming(file: Path, pages: int) -> bytes:
    """A rollback journal of no pages; SQLite removes the file that it names once it has rolled back."""
    name = str(file).encode()
    checksum = sum(name)
    header = (MAGIC + struct.pack(">5I", 0, 0, pages, 512, PAGE)).ljust(512, b"\0")
    return header + struct.pack(">I", 2**30 // PAGE + 1) + name + struct.pack(">2I", len(name), checksum) + MAGIC


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    file = tmp_path / "thesis.tex"
    file.write_text("mine\n" * 100)
    return file


def lay_journal(database: Path, thesis: Path) -> None:
    database.with_name(f"{database.name}-journal").write_bytes(journal_naming(thesis, database.stat().st_size // PAGE))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "data"
    asked: dict[str, Any] = {"env": "CartPole-v1", "random": True, "max_steps_per_episode": 3, "workers": 1}
    generate(**asked, exp="E", num_episodes=1, data_root=str(folder))
    return folder


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def test_control_sqlite_removes_what_a_journal_names(tmp_path: Path, thesis: Path) -> None:
    database = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE a (b)")
    lay_journal(database, thesis)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("SELECT * FROM a")
    assert not thesis.exists()


USES: dict[str, Callable[[Path], Any]] = {
    "generate": lambda data: generate(exp="E", num_episodes=2, workers=1, data_root=str(data)),
    "verify": lambda data: verify(quick=True, data_root=str(data)),
    "delete": lambda data: delete(exp="E", data_root=str(data)),
    "import": lambda data: import_data(str(data), data_root=str(data.parent / "merged")),
}


def test_no_command_removes_what_a_registrys_journal_names(data: Path, thesis: Path) -> None:
    for use, call in USES.items():
        lay_journal(data / "rlhfblender.db", thesis)
        with contextlib.suppress(RLHFBlenderError):
            call(data)
        assert thesis.exists(), use


@pytest.mark.parametrize("database", ["rlhfblender.db", ".rlhfblender-export/index.sqlite"])
def test_no_export_removes_what_the_journal_of_a_foreign_export_names(database: str, data: Path, thesis: Path) -> None:
    out = data.parent / "out"
    export(str(out), data_root=str(data))
    lay_journal(out / database, thesis)
    with pytest.raises(RLHFBlenderError, match=r"isn't opened: the journal .* remove another file"):
        export(str(out), data_root=str(data))
    assert thesis.exists()


@pytest.mark.parametrize("end", ["", "-journal", "-wal", "-shm"])
def test_pipes_in_place_of_a_registry_and_beside_it_are_one_line(end: str, data: Path) -> None:
    pipe = data / f"rlhfblender.db{end}"
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    with pytest.raises(RLHFBlenderError, match=rf"rlhfblender\.db{end} is no file"):
        verify(quick=True, data_root=str(data))
