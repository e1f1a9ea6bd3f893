"""A killed run's rows are in SQLite's write-ahead log only, and a part of that is lost: files stay, rows come back."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rlhfblender_core.gallery.write import write_page
from rlhfblender_core.storage import DataRoot, open_data_root
from rlhfblender_core.watch import watch
from tests.support.exporting import DataSet
from tests.support.generating import generate, locations_of, request
from tests.support.verifying import database, problems, repair

Command = Callable[[DataRoot], object]
Damage = Callable[[Path], object]
_SOAK = pytest.mark.soak


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as a kill leaves it: nothing of the log has been written into the database."""
    folder = tmp_path_factory.mktemp("killed")
    root = open_data_root(str(folder / "data"))
    generate(root, database(root), request(1))
    with closing(sqlite3.connect(root.local_folder / "rlhfblender.db")) as reader:
        reader.execute("SELECT COUNT(*) FROM episodes").fetchall()  # an open connection, so that others leave the log
        generate(root, database(root), request(3))
        shutil.copytree(root.local_folder, folder / "copy")
    assert (folder / "copy/rlhfblender.db-wal").stat().st_size > 0
    return folder / "copy"


def cut(share: float) -> Damage:
    return lambda log: os.truncate(log, int(log.stat().st_size * share))


def overwrite_middle(log: Path) -> None:
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)


def overwrite_header(log: Path) -> None:
    log.write_bytes(b"x" * 32 + log.read_bytes()[32:])


COMMANDS: dict[str, Command] = {
    "generate": lambda root: generate(root, database(root), request(3)),
    "overwrite": lambda root: generate(root, database(root), request(3, overwrite=True)),
    "verify": lambda root: problems(root, database(root)),
    "watch": lambda root: watch(data_root=root.url, workers=0, settle_seconds=0),
    "export": lambda root: DataSet(root, database(root), root.local_folder).export(root.local_folder.parent / "out"),
    "gallery": lambda root: write_page([], locations_of(root, database(root))),
    "repair": lambda root: repair(root, database(root)),
}


@pytest.mark.parametrize(
    ("damage", "command"),
    [
        (Path.unlink, "repair"),
        (cut(0.5), "generate"),
        *(
            pytest.param(damage, command, marks=_SOAK)
            for damage in (Path.unlink, cut(0), cut(0.2), cut(0.8), overwrite_middle, overwrite_header)
            for command in COMMANDS
        ),
    ],
)
def test_commands_go_on_and_repair_registers_what_was_lost(
    damage: Damage, command: str, killed: Path, tmp_path: Path, snapshot: Callable[[Path], dict[str, str]]
) -> None:
    root = open_data_root(str(tmp_path / "data"))
    shutil.copytree(killed, root.local_folder)
    damage(root.local_folder / "rlhfblender.db-wal")
    COMMANDS[command](root)
    assert repair(root, database(root)) == []
    assert problems(root, database(root)) == []
    assert generate(root, database(root), request(3)) == 0
    made = snapshot(killed)
    assert {path: digest for path, digest in snapshot(root.local_folder).items() if path in made} == made
