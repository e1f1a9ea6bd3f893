"""Nothing intact is replaced by another episode, and no file that isn't ours is replaced at all."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path, manifest_path
from rlhfblender_core.dataset.manifests import Manifest, parse_manifest
from rlhfblender_core.generate import carry_out
from rlhfblender_core.planning.work import plan_work
from rlhfblender_core.steps import LocalSteps
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support.generating import generate, locations_of, request
from tests.support.verifying import database, problems, repair

Snapshot = Callable[[Path], dict[str, str]]
UNSEEDED = "tests.support.environments_for_tests.counting:Unseeded"
KEY = EpisodeKey("E", "random", 0)
EPISODE, REWARDS, UNCERTAINTY, VIDEO, THUMBNAIL = (artifact_path(kind, KEY) for kind in ArtifactKind)


def unseeded(episodes: int = 1, **others: object):
    return request(episodes, env="Unseeded-v0", env_gym_entrypoint=UNSEEDED, **others)


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    return open_data_root(str(tmp_path / "data"))


def manifest(root: DataRoot) -> Manifest:
    return parse_manifest((root.local_folder / manifest_path(KEY)).read_bytes(), "it")


def test_a_lost_thumbnail_is_made_from_the_video_and_the_episode_stays_what_it_was(
    root: DataRoot, snapshot: Snapshot
) -> None:
    generate(root, database(root), unseeded())
    before, told = snapshot(root.local_folder), manifest(root)
    (root.local_folder / THUMBNAIL).unlink()
    assert repair(root, database(root)) == []
    assert problems(root, database(root)) == []
    after = snapshot(root.local_folder)
    assert {path for path in before if before[path] != after[path]} <= {THUMBNAIL, manifest_path(KEY)}
    assert manifest(root).episode_return == told.episode_return
    assert before.keys() == after.keys()


@pytest.mark.parametrize("path", [REWARDS, UNCERTAINTY])
def test_lost_numbers_that_the_episode_determines_come_back_with_the_same_bytes(
    path: str, root: DataRoot, snapshot: Snapshot
) -> None:
    generate(root, database(root), unseeded())
    before = snapshot(root.local_folder)
    (root.local_folder / path).write_bytes(b"damaged")
    assert repair(root, database(root)) == []
    assert snapshot(root.local_folder) == before


@pytest.mark.parametrize("path", [VIDEO, EPISODE])
def test_an_episode_that_its_seed_does_not_determine_is_not_replaced_by_another(
    path: str, root: DataRoot, snapshot: Snapshot
) -> None:
    generate(root, database(root), unseeded())
    (root.local_folder / path).unlink()
    before = snapshot(root.local_folder)
    (line,) = repair(root, database(root))
    assert line.startswith("E/random/0: can't be made again as it was, and was left as it is: ")
    assert "its seed doesn't determine what happens in it" in line
    assert snapshot(root.local_folder) == before
    assert generate(root, database(root), unseeded()) == 0
    assert snapshot(root.local_folder) == before


def test_overwrite_replaces_an_episode_that_its_seed_does_not_determine(root: DataRoot) -> None:
    generate(root, database(root), unseeded())
    told = manifest(root).episode_return
    assert generate(root, database(root), unseeded(overwrite=True)) == 1
    assert manifest(root).episode_return != told
    assert problems(root, database(root)) == []


def with_other_version(root: DataRoot) -> Manifest:
    """The episode as an older library made it."""
    found = manifest(root)
    older = Manifest.model_validate({**found.model_dump(), "versions": {**found.versions, "numpy": "0.1"}})
    (root.local_folder / manifest_path(KEY)).write_bytes(older.content)
    return older


def test_a_manifest_stays_the_same_when_another_version_makes_the_same_bytes(root: DataRoot) -> None:
    generate(root, database(root), request(1))
    older = with_other_version(root)
    (root.local_folder / VIDEO).unlink()
    repair(root, database(root))
    assert problems(root, database(root)) == []
    assert manifest(root).content == older.content


def test_versions_that_differ_are_named_where_an_episode_came_out_otherwise(root: DataRoot) -> None:
    import numpy as np

    generate(root, database(root), unseeded())
    with_other_version(root)
    (root.local_folder / VIDEO).unlink()
    (line,) = repair(root, database(root))
    assert f"numpy 0.1 then, {np.__version__} now" in line


@pytest.mark.parametrize("asked", [{}, {"overwrite": True}, {"no_render": True}])
def test_files_laid_there_by_hand_while_a_run_is_under_way_are_neither_replaced_nor_removed(
    asked: dict[str, object], root: DataRoot
) -> None:
    generate(root, database(root), request(1, **asked))
    locations = locations_of(root, database(root))
    work = plan_work(request(3, **asked), locations)
    by_hand = [artifact_path(kind, EpisodeKey("E", "random", 1)) for kind in ArtifactKind]
    for path in by_hand:
        (root.local_folder / path).parent.mkdir(parents=True, exist_ok=True)
        (root.local_folder / path).write_bytes(b"somebody's")
    report = carry_out(work, LocalSteps(locations, 0))
    assert "import_data.py --exp E" in report.first_failure
    assert report.made == (3 - 1 if asked.get("overwrite") else 1)
    assert {(root.local_folder / path).read_bytes() for path in by_hand} == {b"somebody's"}
    assert not (root.local_folder / "manifests/E/random/1.json").exists()
    assert any("import_data.py --exp E" in line for line in problems(root, database(root)))
    repair(root, database(root))
    assert {(root.local_folder / path).read_bytes() for path in by_hand} == {b"somebody's"}


def test_files_without_manifest_that_are_the_very_ones_are_taken(root: DataRoot, snapshot: Snapshot) -> None:
    generate(root, database(root), request(2))
    before = snapshot(root.local_folder)
    (root.local_folder / manifest_path(KEY)).unlink()
    (root.local_folder / VIDEO).unlink()
    assert generate(root, database(root), request(2)) == 1
    assert snapshot(root.local_folder) == before


def test_the_episodes_of_a_shard_are_not_compared_with_each_other(
    root: DataRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard of a thousand was compared half a million times, manifest by manifest."""
    compared = []
    monkeypatch.setattr(Manifest, "__eq__", lambda *both: compared.append(both) or both[0] is both[1])
    assert generate(root, database(root), unseeded(20)) == 20
    assert len(compared) <= 20
