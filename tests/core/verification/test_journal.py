"""A check that was cut short goes on from where it was."""

import dataclasses
import importlib
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.locations import Locations
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import open_data_root
from rlhfblender_core.verify import Verification, check_files, find_checkpoints, list_episodes, verify_all
from tests.support.generating import locations_of
from tests.support.verifying import EPISODES, database

#: The module; the package's attribute of that name is the function.
_VERIFY = importlib.import_module("rlhfblender_core.verify")


class CutShort(LocalRunner):
    """Ends with the second part, as a kill would."""

    def do_each(self, step: Any, calls: Iterable[Mapping[str, Any]], concurrency: int, **others: Any) -> list[Any]:
        if step is not check_files:
            return super().do_each(step, calls, concurrency, **others)
        step(**next(iter(calls)))
        raise KeyboardInterrupt


@pytest.fixture
def locations(data_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Locations:
    monkeypatch.setattr(_VERIFY, "_EPISODES_AT_ONCE", 1)
    monkeypatch.setattr(_VERIFY, "_EPISODES_AT_ONCE_QUICK", 1)
    shutil.copytree(data_set, tmp_path / "data")
    root = open_data_root(str(tmp_path / "data"))
    return dataclasses.replace(locations_of(root, database(root)), state_folder=tmp_path / "state")


def cut_short(locations: Locations, *, quick: bool = False) -> Path:
    with pytest.raises(KeyboardInterrupt):
        verify_all(None, CutShort(), locations, quick=quick)
    (journal,) = (locations.state_folder / "verify").glob("*.jsonl")
    return journal


def verified(locations: Locations, *, quick: bool = False) -> Verification:
    return verify_all(None, LocalRunner(), locations, quick=quick)


@pytest.mark.parametrize("quick", [True, False])
def test_what_was_sound_is_not_checked_again(locations: Locations, *, quick: bool) -> None:
    journal = cut_short(locations, quick=quick)
    with journal.open("a") as stream:
        stream.write('{"part": "a line that a kill cut')
    found = verified(locations, quick=quick)
    assert (found.left, found.episodes, found.files, found.earlier) == ((), EPISODES, EPISODES * 6, 1)
    assert "(1 episode by a check that was cut short)" in found.summary
    assert not journal.exists()
    assert verified(locations, quick=quick).earlier == 0


def test_a_quick_check_is_none_of_contents(locations: Locations) -> None:
    cut_short(locations, quick=True)
    assert verified(locations).earlier == 0


def test_what_was_not_reached_or_has_changed_since_is_checked(locations: Locations) -> None:
    cut_short(locations)
    renders = Path(locations.data_root) / "renders/E/random"
    (renders / "0.mp4").write_bytes(b"x")
    content = bytearray((renders / "2.mp4").read_bytes())
    content[-1] ^= 1
    (renders / "2.mp4").write_bytes(content)
    found = verified(locations)
    assert [problem.path for problem in found.left] == ["renders/E/random/0.mp4", "renders/E/random/2.mp4"]
    assert found.earlier == 0


def test_problems_are_found_again(locations: Locations) -> None:
    (Path(locations.data_root) / "rewards/E/random/0.npy").write_bytes(b"x")
    with pytest.raises(KeyboardInterrupt):
        verify_all(None, CutShort(), locations)
    assert [problem.path for problem in verified(locations).left] == ["rewards/E/random/0.npy"]


def test_what_was_sound_long_ago_is_checked_again(locations: Locations) -> None:
    journal = cut_short(locations)
    before = time.time() - 2 * 24 * 3600
    os.utime(journal, (before, before))
    assert verified(locations).earlier == 0


def test_notes_that_can_not_be_written_stop_no_check(locations: Locations) -> None:
    locations.state_folder.mkdir(parents=True, exist_ok=True)
    (locations.state_folder / "verify").write_text("a file in the folder's place")
    assert verified(locations).left == ()


def test_parts_are_cut_by_bytes_too(locations: Locations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_VERIFY, "_EPISODES_AT_ONCE", 100)
    (key,) = find_checkpoints(None, locations)
    folder = Path(locations.data_root).parent
    for most, parts in ((10**9, 1), (1, EPISODES)):
        monkeypatch.setattr(_VERIFY, "_BYTES_AT_ONCE", most)
        listed = list_episodes(key, folder, locations, quick=False)
        assert len(listed.parts) == parts
        assert [part.first for part in listed.parts][-1] == (EPISODES - 1 if parts > 1 else 0)
