"""What intact files determine comes back without the environment: it needn't be installed, trusted or determined."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey, EpisodeKey, artifact_path, manifest_path
from rlhfblender_core.repair import repair_all
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.steps import LocalSteps
from rlhfblender_core.storage import DataRoot, open_data_root
from rlhfblender_core.verification.derivations import derive_broken_files
from tests.support.claiming import under_way
from tests.support.generating import generate, locations_of, request
from tests.support.verifying import database, problems, repair, survey

Snapshot = Callable[[Path], dict[str, str]]
UNSEEDED = "tests.support.environments_for_tests.counting:Unseeded"
NUMBERS = EpisodeKey("E", "random", 0), EpisodeKey("E", "random", 1)
EPISODE, REWARDS, UNCERTAINTY, VIDEO, THUMBNAIL = (artifact_path(kind, NUMBERS[0]) for kind in ArtifactKind)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return open_data_root(str(tmp_path / "data"))


def make(root: DataRoot, **others: object) -> None:
    generate(root, database(root), request(2, **others))


def unseeded(root: DataRoot) -> None:
    make(root, env="Unseeded-v0", env_gym_entrypoint=UNSEEDED)


def uninstall(root: DataRoot) -> None:
    """The environment's module is gone."""
    with sqlite3.connect(root.local_folder / "rlhfblender.db") as connection:
        connection.execute("UPDATE environments SET entry_point = 'gone_for_good.envs:Env'")
    connection.close()


def changed(root: DataRoot, before: dict[str, str], snapshot: Snapshot) -> set[str]:
    after = snapshot(root.local_folder)
    assert after.keys() == before.keys()
    return {path for path in before if before[path] != after[path]}


def test_a_thumbnail_comes_from_the_video_where_the_environment_is_gone(root: DataRoot, snapshot: Snapshot) -> None:
    make(root)
    uninstall(root)
    before = snapshot(root.local_folder)
    (root.local_folder / THUMBNAIL).unlink()
    assert repair(root, database(root)) == []
    assert problems(root, database(root)) == []
    assert changed(root, before, snapshot) <= {THUMBNAIL, manifest_path(NUMBERS[0])}


def test_a_thumbnail_comes_from_the_video_where_the_environment_is_not_trusted(root: DataRoot) -> None:
    make(root)
    (root.local_folder / THUMBNAIL).write_bytes(b"x")
    locations = replace(
        locations_of(root, database(root)), state_folder=root.local_folder.parent, trusted_packages=frozenset()
    )
    done = repair_all(None, LocalRunner(), LocalSteps(locations, 0), trust_checkpoint=False)
    assert (done.notes, done.left) == ((), ())


def test_nothing_is_rolled_out_for_what_intact_files_determine(
    root: DataRoot, snapshot: Snapshot, step_count: Callable[[], int]
) -> None:
    unseeded(root)
    before, steps = snapshot(root.local_folder), step_count()
    for path in (REWARDS, UNCERTAINTY, THUMBNAIL):
        (root.local_folder / path).unlink()
    assert repair(root, database(root)) == []
    assert problems(root, database(root)) == []
    assert step_count() == steps
    assert changed(root, before, snapshot) <= {THUMBNAIL, manifest_path(NUMBERS[0])}


def test_a_thumbnail_of_an_episode_that_can_be_made_again_has_the_bytes_of_before(
    root: DataRoot, snapshot: Snapshot
) -> None:
    make(root)
    before = snapshot(root.local_folder)
    (root.local_folder / THUMBNAIL).unlink()
    assert repair(root, database(root)) == []
    assert changed(root, before, snapshot) == set()


def test_what_can_be_derived_is_and_what_can_not_is_told(root: DataRoot) -> None:
    make(root)
    uninstall(root)
    video_of_1 = VIDEO.replace("/0.", "/1.")
    for path in (REWARDS, THUMBNAIL, THUMBNAIL.replace("/0.", "/1."), video_of_1):
        (root.local_folder / path).unlink()
    (line,) = repair(root, database(root))
    assert "gone_for_good" in line
    assert problems(root, database(root)) == [
        f"{path}: is missing" for path in (video_of_1, THUMBNAIL.replace("/0.", "/1."))
    ]


def test_a_video_comes_back_beside_a_thumbnail_that_was_made_from_it(root: DataRoot, snapshot: Snapshot) -> None:
    make(root)
    entry_point = request(1).env_gym_entrypoint
    uninstall(root)
    (root.local_folder / THUMBNAIL).unlink()
    assert repair(root, database(root)) == []
    mended = snapshot(root.local_folder)
    with sqlite3.connect(root.local_folder / "rlhfblender.db") as connection:
        connection.execute("UPDATE environments SET entry_point = ?", (entry_point,))
    connection.close()
    (root.local_folder / VIDEO).unlink()
    assert repair(root, database(root)) == []
    assert changed(root, mended, snapshot) == set()


def test_an_episode_that_a_live_run_has_claimed_is_left_alone(root: DataRoot) -> None:
    unseeded(root)
    (root.local_folder / REWARDS).unlink()
    with under_way(root, database(root), "E") as claims:
        claims.claim(CheckpointKey("E", "random"), [0])
        found = survey(root, database(root)).problems
        derived = derive_broken_files(found, locations_of(root, database(root)), replace_thumbnails=True)
        assert derived == frozenset()
    assert [problem.path for problem in found] == [REWARDS]
    assert not (root.local_folder / REWARDS).exists()


def test_numbers_that_a_damaged_source_would_give_are_not_taken(root: DataRoot) -> None:
    unseeded(root)
    (root.local_folder / EPISODE).write_bytes((root.local_folder / EPISODE.replace("/0.", "/1.")).read_bytes())
    (root.local_folder / REWARDS).unlink()
    assert len(repair(root, database(root))) == 1
    assert not (root.local_folder / REWARDS).exists()
