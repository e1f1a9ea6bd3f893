"""A data set by RLHF-Blender's authors: an environment that isn't installed, pickled infos, a database."""

from pathlib import Path

import numpy as np
import pytest

from rlhfblender_core.dataset.episode_checks import find_fault
from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.gallery import write_gallery
from rlhfblender_core.import_data import ImportRequest, import_action_labels, import_episodes, plan_import
from rlhfblender_core.storage import open_data_root


def test_all_six_episodes_and_the_action_labels_are_imported(real_inputs: Path, tmp_path: Path) -> None:
    source = real_inputs / "rlhfblender_remote_data"
    if not source.is_dir():
        pytest.skip("no rlhfblender_remote_data among the real inputs")
    target, staging = tmp_path / "data", tmp_path / "staging"
    staging.mkdir()
    root = open_data_root(str(target))
    plan = plan_import(ImportRequest(source, "Sweep", "metaworld-sweep-into-v3"), None)
    assert plan.environment.action_space["shape"] == [4]
    for found, to in plan.work:
        batch = import_episodes(root, found, found.numbers(), to, staging)
        assert (batch.made, batch.faults, batch.notes) == ((0, 1, 2), (), ())
    manifests = sorted((target / "manifests").rglob("*.json"))
    assert len(manifests) == 6
    for path in manifests:
        manifest = parse_manifest(path.read_bytes(), str(path))
        for kind, record in manifest.artifacts.items():
            assert find_fault(kind, target / record.path, manifest) is None
        with np.load(target / "episodes" / "Sweep" / manifest.checkpoint / f"{manifest.episode}.npz") as arrays:
            assert arrays["final_obs"].shape == (39,)
            assert len(arrays["infos"]) == manifest.episode_length == manifest.frames
    assert import_action_labels(root, plan.folder) == (7, ())
    assert write_gallery(root).episodes == 6
