from pathlib import Path

import numpy as np

from rlhfblender_core.import_data import import_action_labels
from rlhfblender_core.storage import open_data_root
from tests.support.making_sources import write_picture


def test_pictures_become_arrays_under_their_labels(source: Path, target: Path) -> None:
    folder = source / "action_labels" / "ALE-Pong-v5"
    write_picture(folder / "0_left.png")
    write_picture(folder / "fire.png", "RGBA")
    stored, faults = import_action_labels(open_data_root(str(target)), source)
    assert (stored, faults) == (2, ())
    assert np.load(target / "action_labels/ALE-Pong-v5/left.npy").shape == (32, 48, 3)
    assert np.load(target / "action_labels/ALE-Pong-v5/fire.npy").shape == (32, 48, 4)


def test_files_that_are_no_pictures_are_named_and_the_rest_stored(source: Path, target: Path) -> None:
    folder = source / "action_labels" / "Made-v0"
    write_picture(folder / "left.png")
    (folder / "up.svg").write_text("<svg/>")
    (folder / "down.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("x")
    stored, faults = import_action_labels(open_data_root(str(target)), source)
    assert stored == 1
    assert [fault.partition(":")[0] for fault in faults] == [
        f"action_labels/Made-v0/{name}" for name in ("down.png", "notes.txt", "up.svg")
    ]


def test_import_in_place_leaves_arrays_alone(source: Path) -> None:
    write_picture(source / "action_labels" / "Made-v0" / "left.png")
    root = open_data_root(str(source))
    assert import_action_labels(root, source) == (1, ())
    (source / "action_labels" / "Made-v0" / "left.png").unlink()
    assert import_action_labels(root, source) == (0, ())


def test_source_without_pictures_is_fine(source: Path, target: Path) -> None:
    assert import_action_labels(open_data_root(str(target)), source) == (0, ())
