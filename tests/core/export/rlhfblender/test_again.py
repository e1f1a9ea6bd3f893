"""The export to RLHF-Blender, run again: what is new is written, what is gone goes, ids and numbers stay."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.published import read_published
from rlhfblender_core.delete import delete_checkpoint, plan_deletion
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.export.exported import Exported, exported_episodes
from rlhfblender_core.export.index import read_numbers
from rlhfblender_core.register import RegistrationRequest, register_environment
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import open_data_root
from tests.support import server_contract
from tests.support.exporting import DataSet
from tests.support.generating import locations_of

Snapshot = Callable[[Path], dict[str, str]]


def remembered(out: Path, checkpoint: str = "random", experiment: str = "E") -> dict[int, Exported]:
    with exported_episodes(open_data_root(str(out)), CheckpointKey(experiment, checkpoint)) as exported:
        return exported.between(0, 10**9)


def contents(out: Path, snapshot: Snapshot) -> tuple[dict[str, str], dict[int, Exported]]:
    """The export's files, and the rows of its index, whose file depends on the order in which it was written."""
    files = snapshot(out)
    del files[".rlhfblender-export/index.sqlite"]
    return files, remembered(out)


def test_a_second_run_changes_nothing(data: DataSet, out: Path, snapshot: Snapshot) -> None:
    data.counting(action_names=("a", "b", "c"))
    data.export(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    reports = data.export(out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    assert [(report.made, report.existing) for report in reports] == [(0, 2)]


def test_two_exports_have_the_same_bytes(data: DataSet, tmp_path: Path, snapshot: Snapshot) -> None:
    data.counting()
    for name in ("one", "two"):
        data.export(tmp_path / name)
    assert contents(tmp_path / "one", snapshot) == contents(tmp_path / "two", snapshot)


def test_only_new_episodes_are_written(data: DataSet, out: Path) -> None:
    data.counting(episodes=1)
    data.export(out)
    before = {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*") if path.is_file()}
    data.counting(episodes=3)
    assert [(report.made, report.existing) for report in data.export(out)] == [(2, 1)]
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert len(server_contract.check_folder(out)) == 3


def test_experiments_keep_their_ids_and_checkpoints_their_numbers(data: DataSet, out: Path) -> None:
    data.counting("B")
    data.export(out)
    data.counting("A")
    data.counting("C")
    data.export(out)
    data.export(out, ["C"])
    rows = server_contract.read_database(out)["Experiment"]
    assert {row["exp_name"]: row["id"] for row in rows} == {"B": 1, "A": 2, "C": 3}
    assert len(server_contract.check_folder(out)) == 6


def test_an_export_of_one_experiment_leaves_the_others_alone(data: DataSet, out: Path) -> None:
    data.counting("A", project="P")
    data.counting("B", project="P")
    for name in ("A", "B", "A"):
        data.export(out, [name])
    assert len(server_contract.check_folder(out)) == 4
    (project,) = server_contract.read_database(out)["Project"]
    assert project["project_experiments"] == ["A", "B"]


def test_an_episode_made_anew_is_exported_anew(data: DataSet, out: Path) -> None:
    data.counting()
    data.export(out)
    first = [episode.arrays["obs"] for episode in server_contract.check_folder(out)]
    data.counting(overwrite=True, max_steps_per_episode=3)
    assert [(report.made, report.existing) for report in data.export(out)] == [(2, 0)]
    again = server_contract.check_folder(out)
    assert [len(obs) for obs in first] == [5, 5]
    assert [len(episode.rewards) for episode in again] == [3, 3]


def test_a_file_that_is_gone_or_cut_off_is_written_again(data: DataSet, out: Path) -> None:
    data.counting()
    data.export(out)
    files = [path for path in sorted((out / "data").rglob("*")) if path.is_file()]
    for file in files:
        if file.parts[-1].startswith(("0.", "benchmark_0", "rewards_0", "uncertainty_0")):
            content = file.read_bytes()
            file.unlink()
            if file.suffix != ".mp4":
                file.write_bytes(content[:-1])
            assert [(report.made, report.existing) for report in data.export(out)] == [(1, 1)]
            assert file.read_bytes() == content
    server_contract.check_folder(out)


def test_an_episode_that_is_no_more_goes_from_the_export(data: DataSet, out: Path) -> None:
    data.counting()
    data.export(out)
    Path(data.root.full_path("manifests/E/random/1.json")).unlink()
    data.export(out)
    assert [episode.number for episode in server_contract.check_folder(out)] == [0]


def test_a_checkpoint_that_is_no_more_goes_from_the_export_and_keeps_its_number(
    data: DataSet, out: Path, trained_cartpole: Path
) -> None:
    cartpole: dict[str, Any] = {
        "env": "CartPole-v1",
        "exp": "E",
        "model_path": str(trained_cartpole),
        "checkpoints": (0, "final"),
        "num_episodes": 1,
        "max_steps_per_episode": 2,
    }
    data.generate(**cartpole)
    data.export(out)
    with open_registry(data.url) as registry:
        delete_checkpoint(data.root, registry, plan_deletion(data.root, registry, "E", ["final"]).checkpoints[0])
    data.export(out)
    assert [episode.checkpoint for episode in server_contract.check_folder(out)] == [0]
    data.generate(**{**cartpole, "checkpoints": (256, "final")})
    data.export(out)
    assert [episode.checkpoint for episode in server_contract.check_folder(out)] == [0, 256, 257]
    assert read_numbers(open_data_root(str(out))).checkpoints["E"] == {"random": 0, "final": 256, "256": 257}


def test_rewards_can_be_cumulative_and_changed(data: DataSet, out: Path) -> None:
    data.counting()
    data.export(out)
    assert [report.made for report in data.export(out, rewards="cumulative")] == [2]
    server_contract.check_folder(out, rewards="cumulative")


def test_an_experiment_made_anew_without_videos_goes_from_the_database(data: DataSet, out: Path) -> None:
    data.counting("A")
    data.counting("B")
    data.export(out)
    data.counting("A", overwrite=True, no_render=True)
    data.export(out)
    tables = server_contract.read_database(out)
    assert [row["project_experiments"] for row in tables["Project"]] == [["B"]]
    assert {episode.experiment for episode in server_contract.check_folder(out)} == {"B"}
    data.counting("A", overwrite=True, no_render=False)
    data.export(out)
    assert {row["exp_name"]: row["id"] for row in server_contract.read_database(out)["Experiment"]} == {"A": 1, "B": 2}
    assert len(server_contract.check_folder(out)) == 4


def test_labels_set_later_are_in_new_manifests_and_in_the_next_export(data: DataSet, out: Path) -> None:
    data.counting(episodes=1)
    data.export(out)
    request = RegistrationRequest(env="CountingMade-v0", action_labels=["a", "b", "c"])
    register_environment(request, data.root, data.url, locations_of(data.root, data.url).trust())
    data.counting(episodes=2)
    manifests = read_published(data.root, CheckpointKey("E", "random")).manifests
    assert [manifests[number].action_names for number in (0, 1)] == [None, ("a", "b", "c")]
    assert [(report.made, report.existing) for report in data.export(out)] == [(1, 1)]
    (row,) = server_contract.read_database(out)["Environment"]
    assert row["action_space_info"]["labels"] == {"0": "a", "1": "b", "2": "c"}


def test_an_export_stopped_half_way_is_finished_by_the_next(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    module = importlib.import_module("rlhfblender_core.export.rlhfblender.episodes")

    data.counting(episodes=3)
    data.export(tmp_path / "whole")
    real, calls = module.publish_files, []

    def stops(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 4:
            assert list(remembered(tmp_path / "out")) == [0], "a killed process has no time to write"
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(module, "publish_files", stops)
    with pytest.raises(KeyboardInterrupt):
        data.export(tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == 1
    assert not (tmp_path / "out" / "rlhfblender.db").exists()
    monkeypatch.undo()
    left = tmp_path / "out/.rlhfblender-export/staging-killed/0.npz"
    left.parent.mkdir()
    left.touch()
    assert [(report.made, report.existing) for report in data.export(tmp_path / "out")] == [(2, 1)]
    assert contents(tmp_path / "out", snapshot) == contents(tmp_path / "whole", snapshot)


def test_the_index_of_an_export_of_before_is_taken_over(data: DataSet, out: Path) -> None:
    data.counting(episodes=3)
    data.export(out)
    before = {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*") if path.is_file()}
    as_of_before(out)
    data.counting(episodes=4)
    assert [(report.made, report.existing) for report in data.export(out)] == [(1, 3)]
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert not list((out / ".rlhfblender-export").rglob("random.json")), "read once"
    assert [(report.made, report.existing) for report in data.export(out)] == [(0, 4)]


def test_a_damaged_index_is_one_line(data: DataSet, out: Path) -> None:
    data.counting()
    data.export(out)
    (out / ".rlhfblender-export/index.sqlite").write_bytes(b"not a database, by far" * 100)
    with pytest.raises(DataNotUsableError, match=r"index\.sqlite is damaged.*new folder"):
        data.export(out)


def as_of_before(out: Path) -> None:
    """Makes the index what exports kept until they had rows: a JSON text per checkpoint."""
    rows = {str(number): {"source": one.source, "sizes": dict(one.sizes)} for number, one in remembered(out).items()}
    (out / ".rlhfblender-export/index.sqlite").unlink()
    folder = out / ".rlhfblender-export/episodes/E"
    folder.mkdir(parents=True)
    (folder / "random.json").write_text(json.dumps(rows, indent=1) + "\n")
