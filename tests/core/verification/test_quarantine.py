"""Unknown files: named, never removed by repair, and moved away by a wish of its own."""

import shutil
from pathlib import Path

import pytest

from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import DataRoot, open_data_root
from rlhfblender_core.verify import verify_all
from tests.support.generating import locations_of
from tests.support.verifying import database, problems, repair

UNKNOWN = ("renders/E/random/77.mp4", "episodes/E/random/77.npz", "renders/beach.mp4", "thumbnails/E/random/x/1.png")


@pytest.fixture
def root(data_set: Path, tmp_path: Path) -> DataRoot:
    shutil.copytree(data_set, tmp_path / "data")
    for path in UNKNOWN:
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).write_bytes(path.encode())
    return open_data_root(str(tmp_path / "data"))


def test_unknown_files_are_moved_to_a_dated_folder_with_a_list(root: DataRoot) -> None:
    repair(root, database(root))
    assert all((root.local_folder / path).is_file() for path in UNKNOWN), "repair never touches them"
    for _ in range(2):  # again on the same day, with files of the same names
        done = verify_all(None, LocalRunner(), locations_of(root, database(root)), quarantine=True)
        assert (len(done.found), done.left) == (4, ())
        (root.local_folder / UNKNOWN[0]).write_bytes(b"another")
        for path in UNKNOWN[1:]:
            (root.local_folder / path).parent.mkdir(parents=True, exist_ok=True)
            (root.local_folder / path).write_bytes(b"another")
    (folder,) = (root.local_folder / "quarantine").iterdir()
    assert [(folder / path).read_bytes() for path in UNKNOWN] == [path.encode() for path in UNKNOWN]
    assert (folder / f"{UNKNOWN[0]}.1").read_bytes() == b"another"
    listed = (folder / "list.txt").read_text().splitlines()
    assert listed.count(UNKNOWN[0]) == 2
    assert listed.count("thumbnails/E/random/x/") == 2


def test_where_nothing_is_unknown_nothing_is_made(data_set: Path, tmp_path: Path) -> None:
    shutil.copytree(data_set, tmp_path / "data")
    root = open_data_root(str(tmp_path / "data"))
    assert verify_all(None, LocalRunner(), locations_of(root, database(root)), quarantine=True).found == ()
    assert not (root.local_folder / "quarantine").exists()
    assert problems(root, database(root)) == []
