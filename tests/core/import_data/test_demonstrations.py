"""What people have demonstrated on RLHF-Blender's server comes back as the checkpoint ``demo``."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core.dataset.video import read_frames
from rlhfblender_core.import_data.run import import_data
from rlhfblender_core.storage import open_data_root
from rlhfblender_core.verify import verify
from tests.support.exporting import DataSet
from tests.support.making_sources import ENV, episode_arrays, make_database, make_server

TIMES = ("20260301T100000Z", "20260301T090000Z", "20260302T080000Z")


class Bomb:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.place),)


def make_demo(folder: Path, name: str, seed: int = 0, env: str = ENV, checkpoint: str = "5000", **others: Any) -> Path:
    arrays = episode_arrays(6, seed)
    pictures = np.zeros((6, 20, 30, 3), np.uint8)
    for step in range(6):
        pictures[step, :, : 5 * step] = 200
    states = np.empty(6, object)
    states[:] = [{"state": {"qpos": np.zeros(2)}, "observation": None, "elapsed_steps": step} for step in range(6)]
    given = {
        **{name: arrays[name] for name in ("obs", "actions", "rewards", "dones", "infos")},
        "renders": pictures,
        "env_states": states,
        "episode_steps": np.arange(6),
        "episode_rewards": np.zeros(1),
        "episode_lengths": np.full(1, 6),
        "additional_metrics": {},
        **others,
    }
    file = folder / "generated_demos" / env / "exp-1" / f"checkpoint-{checkpoint}" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, allow_pickle=True, **given)
    file.with_suffix(".json").write_text("{}")
    return file


def run(source: Path, tmp_path: Path, env: str = ENV) -> Any:
    return import_data(str(source), exp="Mine", env=env, data_root=str(tmp_path / "data"))


def arrays_of(tmp_path: Path, number: int) -> dict[str, Any]:
    with np.load(tmp_path / "data" / "episodes" / "Mine" / "demo" / f"{number}.npz", allow_pickle=False) as loaded:
        return dict(loaded)


def test_demonstrations_are_a_checkpoint_in_the_order_of_time(source: Path, tmp_path: Path) -> None:
    make_server(source, episodes=1)
    make_database(source)
    for number, time in enumerate(TIMES[:2]):
        make_demo(source, f"abc_demo-00{number}_{time}.npz", number, checkpoint=("5000", "unset")[number])
    imported = run(source, tmp_path)
    assert (imported.made, imported.faults) == (3, ())
    assert not [note for note in imported.notes if "demo" in note]
    first = arrays_of(tmp_path, 0)
    assert not {"renders", "env_states"} & first.keys()
    np.testing.assert_array_equal(first["actions"], episode_arrays(6, 1)["actions"])
    frames = list(read_frames(tmp_path / "data" / "renders" / "Mine" / "demo" / "0.mp4", 20, 30))
    assert [int(frame[10, 2].mean() > 100) for frame in frames] == [0, 1, 1, 1, 1, 1]
    make_demo(source, f"abc_demo-002_{TIMES[2]}.npz", 2)
    again = run(source, tmp_path)
    assert (again.made, again.existing) == (1, 3)
    np.testing.assert_array_equal(arrays_of(tmp_path, 2)["actions"], episode_arrays(6, 2)["actions"])
    assert verify(data_root=str(tmp_path / "data")).found == ()


def test_an_experiment_may_have_demonstrations_only(source: Path, tmp_path: Path) -> None:
    make_demo(source, f"abc_demo-000_{TIMES[0]}.npz", env="ALE_Pong-v5")
    imported = run(source, tmp_path, "ALE/Pong-v5")
    assert (imported.made, imported.faults) == (1, ())
    root = open_data_root(str(tmp_path / "data"))
    data = DataSet(root, f"sqlite:///{tmp_path}/data/rlhfblender.db", tmp_path)
    (report,) = data.export(tmp_path / "out")
    assert (report.made, report.left_out) == (1, {})


def test_nothing_of_a_demonstration_is_executed(source: Path, tmp_path: Path) -> None:
    infos = np.empty(6, object)
    infos[:] = [Bomb(tmp_path / "owned")] * 6
    make_demo(source, f"abc_demo-000_{TIMES[0]}.npz", infos=infos)
    make_demo(source, f"abc_demo-001_{TIMES[1]}.npz", env_states=infos)
    make_demo(source, "other.npz")
    imported = run(source, tmp_path)
    assert not (tmp_path / "owned").exists()
    assert imported.made == 1, "its states aren't read"
    (fault,) = imported.faults
    assert "refused, its pickle uses" in fault
    assert any("generated_demos/: 1 files left out" in note for note in imported.notes)


@pytest.mark.parametrize("renders", [np.zeros(1), np.zeros((5, 20, 30, 3), np.uint8), np.zeros((6, 20, 30), np.uint8)])
def test_a_demonstration_without_a_picture_per_step_has_curves_only(source: Path, tmp_path: Path, renders: Any) -> None:
    make_demo(source, f"abc_demo-000_{TIMES[0]}.npz", renders=renders)
    assert run(source, tmp_path).made == 1
    assert not (tmp_path / "data" / "renders").exists()


def test_projections_are_named_as_left_out(source: Path, tmp_path: Path) -> None:
    make_demo(source, f"abc_demo-000_{TIMES[0]}.npz")
    (source / "saved_projections").mkdir()
    (source / "saved_projections" / "x.json").touch()
    (note,) = [note for note in run(source, tmp_path).notes if "saved_projections" in note]
    assert "1 files left out" in note
