"""Where an export to RLHF-Blender may go: to servers that have data of their own, and where it may not."""

import sqlite3
from pathlib import Path

import pytest

from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError, StorageNotUsableError
from rlhfblender_core.export.index import locked
from rlhfblender_core.export.request import open_target
from rlhfblender_core.storage import open_data_root
from tests.support import server_contract
from tests.support.exporting import DataSet


def test_a_server_that_has_data_of_its_own_keeps_them(data: DataSet, out: Path) -> None:
    data.counting()
    data.export(out)
    with sqlite3.connect(out / "rlhfblender.db") as database:
        database.execute("UPDATE Experiment SET id = 7, exp_comment = 'mine', exp_name = 'theirs'")
        database.execute("UPDATE Project SET project_experiments = \"['theirs']\", project_description = 'hello'")
        for column in ("demo_gen_environment_config", "hyperparams", "seed", "device"):  # other versions have others
            database.execute(f"ALTER TABLE Experiment DROP COLUMN {column}")
        database.execute("CREATE TABLE Dataset (id INTEGER PRIMARY KEY)")
    database.close()
    data.counting("new")
    data.export(out, ["new"])
    tables = server_contract.read_database(out)
    assert {row["exp_name"]: row["id"] for row in tables["Experiment"]} == {"theirs": 7, "new": 8}
    assert (tables["Project"][0]["project_experiments"], tables["Project"][0]["project_description"]) == (
        ["theirs", "new"],
        "hello",
    )


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("", "--to rlhfblender OUT"),
        ("s3://bucket/x", "on this machine"),
        ("{data}/export", "mix with"),
        ("{data}/..", "mix with"),
    ],
)
def test_a_wrong_target_is_refused(data: DataSet, out: str, says: str) -> None:
    data.counting()
    with pytest.raises(InvalidParameterError, match=says):
        open_target(out.format(data=data.root.local_folder), data.root)


def test_experiments_that_are_not_there_are_refused(data: DataSet, out: Path) -> None:
    data.counting()
    with pytest.raises(InvalidParameterError, match="There are: E"):
        data.export(out, ["nope"])
    Path(data.root.full_path("manifests/E/random/0.json")).unlink()
    Path(data.root.full_path("manifests/E/random/1.json")).unlink()
    with pytest.raises(DataNotUsableError, match=r"generate\.py"):
        data.export(out, ["E"])
    with pytest.raises(DataNotUsableError, match="no episodes"):
        data.export(out)
    assert not out.exists()


def test_one_export_at_a_time(data: DataSet, out: Path) -> None:
    data.counting()
    with locked(open_data_root(str(out))), pytest.raises(StorageNotUsableError, match="Another export"):
        data.export(out)


def test_a_foreign_database_is_refused_before_anything_is_written(data: DataSet, out: Path) -> None:
    data.counting()
    out.mkdir()
    (out / "rlhfblender.db").write_bytes(b"not a database, by far" * 100)
    with pytest.raises(DataNotUsableError, match="no database of RLHF-Blender"):
        data.export(out)
    assert not (out / "data").exists()
