"""A model folder of somebody's with pipes and links to devices in the places of files: nothing of them is read."""

import os
from pathlib import Path

import pytest

from rlhfblender_core.checkpoints.download import fetched
from rlhfblender_core.checkpoints.listing import open_folder
from rlhfblender_core.errors import CheckpointNotUsableError


def test_pipes_and_devices_are_no_files_of_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yml")
    (tmp_path / "vecnormalize.pkl").symlink_to("/dev/zero")
    (tmp_path / "nowhere.zip").symlink_to("nowhere")
    (tmp_path / "kept").mkdir()
    (tmp_path / "real.zip").write_bytes(b"x")
    (tmp_path / "linked.zip").symlink_to("real.zip")
    (tmp_path / "folder").symlink_to("kept")
    found = open_folder(str(tmp_path))
    assert found.files == {"real.zip", "linked.zip"}
    assert "kept" in found.folders


@pytest.mark.timeout(60)
def test_an_unzipped_model_of_devices_is_refused_before_it_is_read(tmp_path: Path) -> None:
    model = tmp_path / "rl_model_32_steps"
    model.mkdir()
    (model / "policy.pth").symlink_to("/dev/zero")
    os.mkfifo(model / "data")
    with pytest.raises(CheckpointNotUsableError, match=r"is a folder without data and policy\.pth"):
        fetched(str(model), tmp_path / "cache", None, 2**20)
