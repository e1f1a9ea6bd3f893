"""A data root of somebody's with links in it: what lies where they lead is neither deleted, moved nor replaced."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core import delete, export, gallery, generate, repair
from rlhfblender_core.errors import StorageNotUsableError
from rlhfblender_core.locations import locate
from rlhfblender_core.verification.checks import Problem, Remedy
from rlhfblender_core.verification.quarantine import move_to_quarantine

CHANGES: dict[str, Callable[[str], Any]] = {
    "deleting an experiment": lambda data: delete(exp="E", data_root=data),
    "deleting an episode": lambda data: delete(exp="E", episodes="0", data_root=data),
    "generating more": lambda data: generate(exp="E", num_episodes=3, workers=1, data_root=data),
    "overwriting": lambda data: generate(exp="E", num_episodes=2, workers=1, seed=7, overwrite=True, data_root=data),
    "repairing": lambda data: repair(data_root=data),
    "quarantine": lambda data: move_to_quarantine(
        [Problem("rewards/E/random/mine.txt", "is unknown", Remedy.QUARANTINE)], locate(data, None)
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("whole") / "data"
    asked: dict[str, Any] = {"env": "CartPole-v1", "random": True, "max_steps_per_episode": 3, "workers": 1}
    generate(**asked, exp="E", num_episodes=2, no_render=True, data_root=str(data))
    generate(**asked, exp="R", num_episodes=1, data_root=str(data))
    return data


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def moved_behind_a_link(place: Path, elsewhere: Path) -> None:
    shutil.move(place, elsewhere)
    place.symlink_to(elsewhere)


@pytest.mark.parametrize("change", CHANGES)
def test_what_lies_behind_a_link_stays_and_nothing_is_done_by_halves(change: str, whole: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(whole, tmp_path / "data"))
    (data / "rewards/E/random/mine.txt").write_text("mine")
    if change == "repairing":
        (data / "rewards/E/random/1.npy").unlink()
    theirs = tmp_path / "theirs"
    moved_behind_a_link(data / "rewards/E", theirs)
    before, episodes = contents(theirs), contents(data / "episodes")
    with pytest.raises(StorageNotUsableError, match="rewards/E is a link to"):
        CHANGES[change](str(data))
    assert contents(theirs) == before
    assert contents(data / "episodes") == episodes
    assert len(contents(data / "manifests" / "E")) == 2


def test_an_export_and_a_gallery_stay_in_their_folders(whole: Path, tmp_path: Path) -> None:
    data, out = Path(shutil.copytree(whole, tmp_path / "data")), tmp_path / "out"
    export(str(out), data_root=str(data))
    gallery(data_root=str(data))
    for number, link in enumerate((out / "data", data / "gallery")):
        moved_behind_a_link(link, tmp_path / f"theirs {number}")
    before = [contents(tmp_path / f"theirs {number}") for number in range(2)]
    generate(exp="R", num_episodes=2, workers=1, data_root=str(data))
    for change in (lambda: export(str(out), data_root=str(data)), lambda: gallery(data_root=str(data))):
        with pytest.raises(StorageNotUsableError, match="is a link to"):
            change()
    assert [contents(tmp_path / f"theirs {number}") for number in range(2)] == before
