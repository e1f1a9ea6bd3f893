"""Data made before the house was rebuilt (commit 9a8c2a6): verified clean, continued and repaired."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.planning.request import request_from_flags
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.support import __file__ as support
from tests.support.generating import generate
from tests.support.verifying import database, problems, repair

Snapshot = Callable[[Path], dict[str, str]]
RANDOM, TRAINED = "CartPole-v1_random_experiment", "CartPole-v1_trained_experiment"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataRoot:
    with tarfile.open(Path(support).parent / "data" / "before_the_house.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)  # the model's path is a relative one
    return open_data_root(str(tmp_path / "data"))


def test_data_of_before_is_verified_clean(root: DataRoot) -> None:
    assert problems(root, database(root)) == []


@pytest.mark.parametrize(("experiment", "flags"), [(RANDOM, {}), (TRAINED, {"checkpoints": [64]})])
def test_data_of_before_is_continued_and_repaired(
    experiment: str, flags: dict[str, object], root: DataRoot, snapshot: Snapshot
) -> None:
    before = snapshot(root.local_folder)
    asked = request_from_flags({"exp": experiment, "num_episodes": 3, **flags})
    assert generate(root, database(root), asked) == 1
    after = snapshot(root.local_folder)
    assert {path: after[path] for path in before if "db" not in path} == {p: before[p] for p in before if "db" not in p}
    assert problems(root, database(root)) == []
    (video,) = root.local_folder.glob(f"renders/{experiment}/*/1.mp4")
    video.unlink()
    assert repair(root, database(root)) == []
    assert problems(root, database(root)) == []
    again = snapshot(root.local_folder)  # the video's encoder has other settings by now
    assert {path for path in after if after[path] != again[path]} <= _paths(root, video)


@pytest.mark.parametrize("lost", ["episodes", "renders", "thumbnails"])
def test_a_lost_file_of_before_is_made_again_beside_what_is_intact(
    root: DataRoot, snapshot: Snapshot, lost: str
) -> None:
    # Its video was encoded with other settings: that doesn't make it another episode.
    before = snapshot(root.local_folder)
    (path,) = root.local_folder.glob(f"{lost}/{RANDOM}/random/0.*")
    path.unlink()
    assert repair(root, database(root)) == []
    assert problems(root, database(root)) == []
    after = snapshot(root.local_folder)
    changed = {path for path in before if before[path] != after.get(path)}
    assert changed <= {f"manifests/{RANDOM}/random/0.json", str(path.relative_to(root.local_folder))}
    assert lost != "episodes" or not changed  # arrays come out the same, or not at all


def _paths(root: DataRoot, video: Path) -> set[str]:
    path = str(video.relative_to(root.local_folder))
    return {path, path.replace("renders", "manifests").replace(".mp4", ".json")}
