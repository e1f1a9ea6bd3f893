"""Verify and repair beside files of nobody, the registry's rows, and runs that are under way."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey, EpisodeKey, artifact_path
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.storage import DataRoot, open_data_root
from rlhfblender_core.verification.checks import Remedy
from rlhfblender_core.verification.left_over import remove_left_over
from tests.support.claiming import claim_and_die, under_way
from tests.support.generating import generate, locations_of, request
from tests.support.verifying import EPISODES, database, problems, repair, survey

Snapshot = Callable[[Path], dict[str, str]]


@pytest.fixture
def root(data_set: Path, tmp_path: Path) -> DataRoot:
    shutil.copytree(data_set, tmp_path / "data")
    return open_data_root(str(tmp_path / "data"))


def test_what_a_live_run_has_not_indexed_yet_is_no_problem(root: DataRoot) -> None:
    with sqlite3.connect(root.local_folder / "rlhfblender.db") as connection:
        connection.execute("DELETE FROM episodes WHERE number = 0")
    connection.close()
    with under_way(root, database(root), "E"):
        assert problems(root, database(root)) == []
    with under_way(root, database(root), "F"):
        assert problems(root, database(root)) == ["registry: episode E/random/0: has no row"]


def test_a_leftover_that_a_run_has_claimed_or_published_since_is_not_removed(root: DataRoot) -> None:
    manifest = root.local_folder / "manifests/E/random/1.json"
    content = manifest.read_bytes()
    manifest.unlink()
    with sqlite3.connect(root.local_folder / "rlhfblender.db") as connection:
        connection.execute("DELETE FROM episodes WHERE number = 1")
    connection.close()
    claim_and_die(root, database(root), CheckpointKey("E", "random"), [1])
    locations = locations_of(root, database(root))
    found = survey(root, database(root)).problems
    assert {problem.remedy for problem in found} == {Remedy.REMOVE}
    with under_way(root, database(root), "E") as run:
        run.claim(CheckpointKey("E", "random"), [1])
        assert remove_left_over(found, locations) == 0
        run.release(CheckpointKey("E", "random"), [1])
    manifest.write_bytes(content)
    assert remove_left_over(found, locations) == 0
    manifest.unlink()
    assert remove_left_over(found, locations) == len(ArtifactKind)


def test_files_without_manifest_that_a_dead_run_had_claimed_are_removed(root: DataRoot) -> None:
    claim_and_die(root, database(root), CheckpointKey("E", "random"), [99])
    for kind in ArtifactKind:
        file = root.local_folder / artifact_path(kind, EpisodeKey("E", "random", 99))
        file.write_bytes(b"left over")
    found = survey(root, database(root)).problems
    assert [problem.what for problem in found] == ["was left by a run that died"] * 5
    repair(root, database(root))
    assert problems(root, database(root)) == []
    assert not list(root.local_folder.rglob("99.*"))


def test_what_is_no_data_sets_is_named_and_left_alone(root: DataRoot) -> None:
    unknown_files = [
        "renders/beach.mp4",
        "renders/E/beach.mp4",
        "renders/E/random/beach.mp4",
        "renders/E/random/summer/1.mp4",
        "episodes/beach?/random/0.npz",
    ]
    for path in [*unknown_files, "renders/E/random/.DS_Store", "renders/.cache/x", "README.md"]:
        file = root.local_folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"waves")
    assert sorted(problems(root, database(root))) == [
        "episodes/beach?/: is no folder of a data set; move it away",
        "renders/E/beach.mp4: is no file of a data set; move it away",
        "renders/E/random/beach.mp4: is no file of a data set; move it away",
        "renders/E/random/summer/: is no folder of a data set; move it away",
        "renders/beach.mp4: is no file of a data set; move it away",
    ]
    found = [problem.path for problem in survey(root, database(root), "E").problems]
    assert sorted(found) == ["renders/E/beach.mp4", "renders/E/random/beach.mp4", "renders/E/random/summer/"]
    repair(root, database(root))
    assert all((root.local_folder / path).exists() for path in unknown_files)


def test_rows_are_rebuilt_from_the_manifests(root: DataRoot) -> None:
    with sqlite3.connect(root.local_folder / "rlhfblender.db") as connection:
        connection.execute("DELETE FROM episodes WHERE number = 0")
        connection.execute("UPDATE episodes SET episode_return = 1e6 WHERE number = 1")
        connection.execute("UPDATE episodes SET number = 77 WHERE number = 2")
    connection.close()
    assert sorted(problems(root, database(root))) == [
        "registry: episode E/random/0: has no row",
        "registry: episode E/random/1: has a row that says something else than its manifest",
        "registry: episode E/random/2: has no row",
        "registry: episode E/random/77: has a row, but no files",
    ]
    repair(root, database(root))
    assert problems(root, database(root)) == []


def test_a_lost_registry_is_rebuilt_and_broken_episodes_are_still_made_again(
    root: DataRoot, snapshot: Snapshot
) -> None:
    before = snapshot(root.local_folder)
    for file in root.local_folder.glob("rlhfblender.db*"):
        file.unlink()
    assert problems(root, database(root)) == [
        "registry: experiment E: is not registered, though 3 of its episodes are published"
    ]
    (root.local_folder / "renders/E/random/0.mp4").unlink()
    repair(root, database(root))
    assert problems(root, database(root)) == []
    assert snapshot(root.local_folder) == before
    assert generate(root, database(root), request(EPISODES)) == 0


def test_an_unknown_experiment_is_refused(root: DataRoot) -> None:
    with pytest.raises(InvalidParameterError, match=r"There is no experiment 'F'.*There are: E"):
        survey(root, database(root), "F")
