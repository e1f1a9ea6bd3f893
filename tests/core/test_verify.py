"""Verify names exactly what is wrong, and repair brings back the same bytes."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from generating import KEY, generate, request
from verifying import problems, repair, survey

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.layout import ArtifactKind, EpisodeKey, artifact_path, manifest_path
from rlhfblender_core.manifests import canonical_digest
from rlhfblender_core.storage import DataRoot, open_data_root
from rlhfblender_core.verify import Remedy

Snapshot = Callable[[Path], dict[str, str]]

#: Every survey decodes all videos, so few here; the soak tests have 30.
EPISODES = 3
PATHS = [artifact_path(kind, EpisodeKey("E", "random", 1)) for kind in ArtifactKind] + ["manifests/E/random/1.json"]


def database(root: DataRoot) -> str:
    return f"sqlite:///{root.local_folder / 'rlhfblender.db'}"


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data-set") / "data"
    root = open_data_root(str(folder))
    generate(root, database(root), request(EPISODES))
    return folder


@pytest.fixture
def root(data_set: Path, tmp_path: Path) -> DataRoot:
    shutil.copytree(data_set, tmp_path / "data")
    return open_data_root(str(tmp_path / "data"))


def test_a_sound_data_set_has_no_problems_and_all_its_files_are_checked(root: DataRoot) -> None:
    findings = survey(root, database(root))
    assert findings.problems == ()
    assert (len(findings.records), findings.files) == (EPISODES, EPISODES * 6)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


DAMAGES = [flip, truncate, Path.unlink]


@pytest.mark.parametrize(("path", "damage"), [(path, DAMAGES[n % 3]) for n, path in enumerate(PATHS + PATHS[-1:])])
def test_a_damaged_file_is_named_alone_and_repaired_to_the_same_bytes(
    path: str, damage: Callable[[Path], None], root: DataRoot, snapshot: Snapshot
) -> None:
    before = snapshot(root.local_folder)
    damage(root.local_folder / path)
    found = survey(root, database(root)).problems
    assert [problem.path for problem in found] == [path]
    assert found[0].remedy is Remedy.REMAKE
    assert repair(root, database(root)) == []
    assert problems(root, database(root)) == []
    assert snapshot(root.local_folder) == before


@pytest.mark.parametrize("path", [PATHS[0], PATHS[-1]])
def test_two_swapped_files_are_both_named_and_repaired(path: str, root: DataRoot, snapshot: Snapshot) -> None:
    before = snapshot(root.local_folder)
    other = path.replace("/1.", "/2.")
    one, two = root.local_folder / path, root.local_folder / other
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    # Counting gives two episodes the same frames: then nothing was swapped.
    expected = [] if contents[0] == contents[1] else [path, other]
    assert sorted(problem.path for problem in survey(root, database(root)).problems) == expected
    repair(root, database(root))
    assert problems(root, database(root)) == []
    assert snapshot(root.local_folder) == before


def test_every_single_byte_of_a_manifest_matters(root: DataRoot) -> None:
    file = root.local_folder / manifest_path(EpisodeKey("E", "random", 0))
    content = file.read_bytes()
    for position in range(0, len(content), 97):
        file.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        listed = survey_of_episode(root, 0)
        assert [problem.path for problem in listed] == ["manifests/E/random/0.json"], content[position : position + 9]


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("damage", DAMAGES)
def test_each_of_180_files_is_named_alone_when_damaged_and_all_are_repaired(
    damage: Callable[[Path], None], tmp_path: Path, snapshot: Snapshot
) -> None:
    root = open_data_root(str(tmp_path / "thirty"))
    generate(root, database(root), request(30))
    before = snapshot(root.local_folder)
    for path in before:
        content = (root.local_folder / path).read_bytes()
        damage(root.local_folder / path)
        number = int(path.rpartition("/")[2].partition(".")[0])
        if path.startswith("manifests") and damage is Path.unlink:
            found = survey(root, database(root)).problems
        else:
            found = survey_of_episode(root, number)
        assert [problem.path for problem in found] == [path]
        (root.local_folder / path).write_bytes(content)
    for path in before:
        damage(root.local_folder / path)
    repair(root, database(root))
    assert problems(root, database(root)) == []
    assert snapshot(root.local_folder) == before


def survey_of_episode(root: DataRoot, number: int) -> tuple:
    from rlhfblender_core.listings import list_checkpoint
    from rlhfblender_core.verify import check_episodes

    listing = list_checkpoint(root, KEY, [], in_progress=False)
    return check_episodes(root, listing, [listing.episodes[number]]).problems


def test_files_without_manifest_and_row_belong_to_nobody_and_are_removed(root: DataRoot) -> None:
    for kind in ArtifactKind:
        file = root.local_folder / artifact_path(kind, EpisodeKey("E", "random", 99))
        file.write_bytes(b"left over")
    found = survey(root, database(root)).problems
    assert [problem.what for problem in found] == ["belongs to no episode"] * 5
    repair(root, database(root))
    assert problems(root, database(root)) == []
    assert not list(root.local_folder.rglob("99.*"))


def test_files_that_are_no_data_sets_are_named_and_left_alone(root: DataRoot) -> None:
    stranger = root.local_folder / "renders/E/random/holiday.mp4"
    stranger.write_bytes(b"beach")
    (stranger.parent / ".DS_Store").write_bytes(b"")
    assert problems(root, database(root)) == [
        "renders/E/random/holiday.mp4: is no file of a data set; move it away",
    ]
    repair(root, database(root))
    assert stranger.exists()


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


def test_a_file_that_was_wrong_when_it_was_published_is_found(root: DataRoot) -> None:
    """Sizes and sums agree with the manifest, but the content isn't an episode's."""
    file = root.local_folder / "thumbnails/E/random/2.png"
    manifest_file = root.local_folder / "manifests/E/random/2.json"
    file.write_bytes(b"no picture")
    content = json.loads(manifest_file.read_text())
    del content["sha256"]
    content["artifacts"]["thumbnails"] |= {"size": 10, "sha256": hashlib.sha256(b"no picture").hexdigest()}
    content["sha256"] = canonical_digest(content)
    manifest_file.write_text(json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    found = problems(root, database(root))
    assert found[0].startswith("thumbnails/E/random/2.png: can't be read as thumbnails")


def test_episodes_of_other_settings_are_not_made_again(root: DataRoot) -> None:
    (root.local_folder / "renders/E/random/1.mp4").unlink()
    with sqlite3.connect(root.local_folder / "rlhfblender.db") as connection:
        connection.execute("UPDATE experiments SET settings = json_set(settings, '$.seed', 5)")
    connection.close()
    refusals = repair(root, database(root))
    assert len(refusals) == 1
    assert "E/random/1: can't be made again as it was" in refusals[0]
    assert problems(root, database(root)) == ["renders/E/random/1.mp4: is missing"]


def test_an_unknown_experiment_is_refused(root: DataRoot) -> None:
    with pytest.raises(InvalidParameterError, match=r"There is no experiment 'F'.*Registered are: E"):
        survey(root, database(root), "F")
