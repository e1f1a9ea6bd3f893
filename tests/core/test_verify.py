"""Verify names exactly what is wrong, and repair brings back the same bytes."""

import hashlib
import importlib
import json
import os
import pickle
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path, manifest_path
from rlhfblender_core.dataset.manifests import canonical_digest
from rlhfblender_core.errors import RegistryNotUsableError
from rlhfblender_core.registry import open_existing_registry
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import DataRoot, open_data_root
from rlhfblender_core.verification.checks import Remedy
from rlhfblender_core.verify import check_files, list_episodes, verify_all
from rlhfblender_core.verify import survey as survey_all
from tests.support.generating import KEY, generate, locations_of, request
from tests.support.verifying import EPISODES, database, problems, repair, survey

Snapshot = Callable[[Path], dict[str, str]]

KEY_1 = EpisodeKey("E", "random", 1)
PATHS = [artifact_path(kind, KEY_1) for kind in ArtifactKind] + ["manifests/E/random/1.json"]


@pytest.fixture
def root(data_set: Path, tmp_path: Path) -> DataRoot:
    shutil.copytree(data_set, tmp_path / "data")
    return open_data_root(str(tmp_path / "data"))


def test_a_sound_data_set_has_no_problems_and_all_its_files_are_checked(root: DataRoot) -> None:
    findings = survey(root, database(root))
    assert findings.problems == ()
    assert (sum(findings.sound.values()), findings.files) == (EPISODES, EPISODES * 6)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


DAMAGES = [flip, truncate, Path.unlink]


def replace_by(thing: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        file.unlink()
        thing(file)

    return damage


def flip_somewhere(file: Path) -> None:
    content = bytearray(file.read_bytes())
    position = random.Random(str(file.name) + str(len(content))).randrange(len(content) * 8)
    content[position // 8] ^= 1 << position % 8
    file.write_bytes(content)


#: Whatever may lie in a file's place. None of it may keep verify from its work, or be read for ever.
STRANGE = {
    "the middle flipped": flip,
    "cut off": truncate,
    "nothing": Path.unlink,
    "nothing in it": lambda file: file.write_bytes(b""),
    "one byte more": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "a flipped bit": flip_somewhere,
    "a folder": replace_by(Path.mkdir),
    "a link to nowhere": replace_by(lambda file: file.symlink_to("nowhere")),
    "a link to itself": replace_by(lambda file: file.symlink_to(file.name)),
    "a device": replace_by(lambda file: file.symlink_to("/dev/zero")),
    "a pipe": replace_by(os.mkfifo),
}


def test_whatever_lies_in_a_files_place_is_named_and_repaired(root: DataRoot, snapshot: Snapshot) -> None:
    before = snapshot(root.local_folder)
    kinds = [
        "manifests/E/random/{}.json",
        *(artifact_path(kind, KEY_1).replace("/1.", "/{}.") for kind in ArtifactKind),
    ]
    strange = list(STRANGE.values())
    for start in range(0, len(strange), EPISODES):  # one file of each episode at a time, another kind each
        paths = [kinds[(start + number) % len(kinds)].format(number) for number in range(EPISODES)]
        for path, damage in zip(paths, strange[start:], strict=False):
            damage(root.local_folder / path)
        found = survey(root, database(root)).problems
        assert sorted(problem.path for problem in found) == sorted(paths[: len(strange) - start])
        assert {problem.remedy for problem in found} == {Remedy.REMAKE}
        assert repair(root, database(root)) == []
        assert snapshot(root.local_folder) == before
    assert problems(root, database(root)) == []


def test_what_lies_among_manifests_and_is_none_is_not_removed(root: DataRoot) -> None:
    notes = root.local_folder / "manifests/E/random/77.json"
    notes.write_text('{"notes": "somebody\'s"}')
    assert problems(root, database(root)) == ["manifests/E/random/77.json: is an unknown file: no manifest"]
    repair(root, database(root))
    assert notes.exists()
    locations = locations_of(root, database(root))
    assert not verify_all(None, LocalRunner(), locations, quarantine=True).left
    (moved,) = root.local_folder.glob("quarantine/*/manifests/E/random/77.json")
    assert "somebody" in moved.read_text()


@pytest.fixture
def as_nobody(data_set: Path) -> Iterator[DataRoot]:
    """A data set of a user without rights, in whose name this process does everything meanwhile."""
    if not hasattr(os, "getuid") or os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        shutil.copytree(data_set, Path(folder) / "data")
        # Loads what Python loads when it is first needed: its own files may be closed to others.
        copied = open_data_root(str(Path(folder) / "data"))
        survey(copied, database(copied))
        for path in (Path(folder), *Path(folder).rglob("*")):
            os.chown(path, 65534, 65534)
        # Environments are tried out in processes that the fork server starts, which root's is: its socket is let in to.
        socket = Path(forkserver._forkserver._forkserver_address)  # type: ignore[attr-defined]
        for path in (socket, socket.parent):
            os.chown(path, 65534, 65534)
        os.seteuid(65534)
        try:
            yield open_data_root(str(Path(folder) / "data"))
        finally:
            os.seteuid(0)


def test_a_file_that_may_not_be_read_is_named_and_repaired(as_nobody: DataRoot, snapshot: Snapshot) -> None:
    root = as_nobody
    before = snapshot(root.local_folder)
    closed = [PATHS[0], "manifests/E/random/2.json"]
    for path in closed:
        (root.local_folder / path).chmod(0)
    assert problems(root, database(root)) == [f"{path}: can't be read: Permission denied" for path in closed]
    assert repair(root, database(root)) == []
    assert problems(root, database(root)) == []
    assert snapshot(root.local_folder) == before


def test_a_registry_out_of_reach_is_told_in_one_line(as_nobody: DataRoot) -> None:
    as_nobody.local_folder.chmod(0)
    with pytest.raises(RegistryNotUsableError, match=r"rlhfblender\.db can't be opened \(Permission denied\)"):
        open_existing_registry(database(as_nobody))


def test_files_that_are_swapped_are_all_named_and_repaired(root: DataRoot, snapshot: Snapshot) -> None:
    before = snapshot(root.local_folder)
    expected = []
    for path in PATHS:
        other = path.replace("/1.", "/2.")
        one, two = root.local_folder / path, root.local_folder / other
        contents = one.read_bytes(), two.read_bytes()
        one.write_bytes(contents[1])
        two.write_bytes(contents[0])
        # Counting gives two episodes the same frames: then nothing was swapped.
        expected += [] if contents[0] == contents[1] or path == PATHS[-1] else [path, other]
    manifests = [PATHS[-1], PATHS[-1].replace("/1.", "/2.")]
    found = survey(root, database(root)).problems
    assert [(problem.path, problem.what[:35]) for problem in found] == [
        (path, "is the manifest of another episode,") for path in manifests
    ]
    for path in manifests:
        (root.local_folder / path).write_bytes((root.local_folder / path).read_bytes())
    one, two = (root.local_folder / path for path in manifests)
    contents = one.read_bytes(), two.read_bytes()
    one.write_bytes(contents[1])
    two.write_bytes(contents[0])
    assert sorted(problem.path for problem in survey(root, database(root)).problems) == sorted(expected)
    repair(root, database(root))
    assert problems(root, database(root)) == []
    assert snapshot(root.local_folder) == before


def test_an_episode_that_is_replaced_meanwhile_is_no_problem(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify has read the manifest, then another run puts the episode in its place."""
    (root.local_folder / "away").mkdir()
    for path in PATHS:
        (root.local_folder / "away" / path.replace("/", "-")).write_bytes((root.local_folder / path).read_bytes())
    generate(root, database(root), request(EPISODES, seed=3, overwrite=True))
    newer = {path: (root.local_folder / path).read_bytes() for path in PATHS}
    for path in PATHS:
        (root.local_folder / path).write_bytes((root.local_folder / "away" / path.replace("/", "-")).read_bytes())
    shutil.rmtree(root.local_folder / "away")
    verify = importlib.import_module("rlhfblender_core.verification.checks")
    find_fault = verify.find_fault

    def replaced_first(kind: ArtifactKind, file: Path, manifest: object) -> str | None:
        for path, content in newer.items():
            (root.local_folder / path).write_bytes(content)
        return find_fault(kind, file, manifest)

    monkeypatch.setattr(verify, "find_fault", replaced_first)
    assert problems(root, database(root)) == []


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
    # All of them, but for one file of an episode: where nothing is left, the registry's row is what is wrong.
    for path in before:
        if not path.startswith("rewards/"):
            damage(root.local_folder / path)
    repair(root, database(root))
    assert problems(root, database(root)) == []
    assert snapshot(root.local_folder) == before


def survey_of_episode(root: DataRoot, number: int) -> tuple:
    from rlhfblender_core.dataset.listings import CheckpointListing, list_files
    from rlhfblender_core.verification.checks import check_episodes

    listing = CheckpointListing(KEY, tuple(list_files(root, KEY).episodes({})))
    return check_episodes(root, listing, [listing.episodes[number]]).problems


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


def quick_problems(root: DataRoot) -> list[str]:
    found = survey_all(None, LocalRunner(), locations_of(root, database(root)), quick=True)
    return [str(problem) for problem in found.problems]


def test_a_quick_check_compares_names_sizes_and_manifests_and_opens_nothing_else(root: DataRoot) -> None:
    assert quick_problems(root) == []
    folder = root.local_folder
    (folder / "renders/E/random/0.mp4").unlink()
    (folder / "rewards/E/random/1.npy").write_bytes(b"short")
    thumbnail = folder / "thumbnails/E/random/2.png"
    thumbnail.write_bytes(bytes(thumbnail.stat().st_size))  # only a full check sees it
    manifest = folder / "manifests/E/random/2.json"
    found = quick_problems(root)
    assert [line.partition(":")[0] for line in found] == ["renders/E/random/0.mp4", "rewards/E/random/1.npy"]
    assert found[0].endswith("is missing")
    assert "has 5 bytes instead of" in found[1]
    manifest.write_bytes(manifest.read_bytes().replace(b"E", b"F", 1))
    assert quick_problems(root)[-1].startswith("manifests/E/random/2.json: is damaged")


def test_steps_get_references_whose_size_does_not_grow_with_the_data(root: DataRoot, tmp_path: Path) -> None:
    locations = locations_of(root, database(root))
    listed = list_episodes(KEY, tmp_path, locations, quick=True)
    assert [(part.first, part.last) for part in listed.parts] == [(0, EPISODES - 1)]
    assert len(pickle.dumps(listed.parts[0])) < 1000
    assert check_files(listed.parts[0], tmp_path / "journal", locations, quick=True).records == ()
