"""The export to RLHF-Blender: the whole contract on real data, then what happens when it is run again."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import server_contract
from exporting import DataSet
from PIL import Image

from rlhfblender_core.action_labels import store_pictures
from rlhfblender_core.catalogue import read_published
from rlhfblender_core.delete import delete_checkpoint, plan_deletion
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError, StorageNotUsableError
from rlhfblender_core.export import locked, open_target
from rlhfblender_core.export.ledger import read_exported, read_numbers
from rlhfblender_core.export.server_episodes import DAMAGED, NO_VIDEO
from rlhfblender_core.layout import ArtifactKind, CheckpointKey, EpisodeKey, artifact_path
from rlhfblender_core.register import RegistrationRequest, register_environment
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import open_data_root

Snapshot = Callable[[Path], dict[str, str]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="module")
def exported(mixed_data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    mixed_data.export(folder)
    return folder


def test_real_data_satisfy_the_contract(exported: Path) -> None:
    served = server_contract.check_folder(exported)
    found = {(episode.experiment, episode.checkpoint) for episode in served}
    assert found == {
        *(("trained_cartpole", number) for number in (0, 128, 256, 257)),  # the final model was trained for 256 too
        *((name, 0) for name in ("Pendulum-v1_random_experiment", "pong", "structured")),
    }
    assert len(served) == 14


def test_the_arrays_are_those_of_our_episodes(exported: Path, mixed_data: DataSet) -> None:
    for episode in server_contract.check_folder(exported):
        labels = {0: "random", 128: "128", 256: "256", 257: "final"}
        key = EpisodeKey(episode.experiment, labels[episode.checkpoint], episode.number)
        with np.load(mixed_data.root.full_path(artifact_path(ArtifactKind.EPISODES, key))) as own:
            np.testing.assert_array_equal(episode.arrays["rewards"], own["rewards"])
            np.testing.assert_array_equal(episode.arrays["actions"], own["actions"])
            if "obs" in own:
                np.testing.assert_array_equal(episode.arrays["obs"], own["obs"])
            if episode.checkpoint:
                np.testing.assert_array_equal(episode.arrays["probs"][:, 0], own["probs"])
                value, entropy = (own[name].tolist() for name in ("values", "entropy"))
                assert [(info["value"], info["entropy"]) for info in episode.arrays["infos"]] == list(
                    zip(value, entropy, strict=True)
                )
        video = Path(mixed_data.root.full_path(artifact_path(ArtifactKind.RENDERS, key)))
        assert episode.video.samefile(video), "a hard link takes no space"


def test_structured_observations_are_rows_of_numbers_and_texts_are_infos(exported: Path) -> None:
    episode = next(e for e in server_contract.check_folder(exported) if e.experiment == "structured")
    t = np.arange(5)
    expected = np.stack([t & 1 > 0, t & 2 > 0, t & 4 > 0, t, t, t % 3, t, 2 * t], axis=1)  # keys are sorted
    np.testing.assert_array_equal(episode.arrays["obs"], expected)
    assert episode.arrays["infos"][3]["mission"] == "go 3"


def test_names_are_those_that_the_server_splits(exported: Path) -> None:
    rows = server_contract.read_database(exported)["Environment"]
    assert {row["registration_id"]: row["env_name"] for row in rows} == {
        "CartPole-v1": "CartPole-v1",
        "Pendulum-v1": "Pendulum-v1",
        "ALE/Pong-v5": "ALE/Pong-v5",
        "Struc_tured-v0": "Struc-tured-v0",
    }
    assert (exported / "data/episodes/ALE_Pong-v5").is_dir()
    assert (exported / "data/episodes/ALE-Pong-v5").is_dir()
    assert (exported / "data/episodes/Struc_tured-v0").is_dir()


def test_the_database_says_what_is_registered(exported: Path, trained_cartpole: Path) -> None:
    tables = server_contract.read_database(exported)
    row = next(row for row in tables["Experiment"] if row["exp_name"] == "trained_cartpole")
    assert (row["framework"], row["algorithm"]) == ("StableBaselines3", "ppo")
    assert (row["path"], row["checkpoint_list"]) == (str(trained_cartpole), [0, 128, 256, 257])
    cartpole = next(row for row in tables["Environment"] if row["registration_id"] == "CartPole-v1")
    assert cartpole["action_space_info"] == {
        "label": "Discrete((2,))",
        "shape": (2,),
        "dtype": "int64",
        "labels": {"0": "left", "1": "right"},
    }
    pong = next(row for row in tables["Environment"] if row["registration_id"] == "ALE/Pong-v5")
    assert pong["additional_gym_packages"] == ["ale_py"]
    projects = {row["project_name"]: row["project_experiments"] for row in tables["Project"]}
    assert projects["Second"] == ["Pendulum-v1_random_experiment", "structured"]


def test_a_second_run_changes_nothing(data: DataSet, out: Path, snapshot: Snapshot) -> None:
    data.counting(action_names=("a", "b", "c"))
    data.export(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    reports = data.export(out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    assert [(report.made, report.there) for report in reports] == [(0, 2)]


def test_two_exports_have_the_same_bytes(data: DataSet, tmp_path: Path, snapshot: Snapshot) -> None:
    data.counting()
    for name in ("one", "two"):
        data.export(tmp_path / name)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_only_new_episodes_are_written(data: DataSet, out: Path) -> None:
    data.counting(episodes=1)
    data.export(out)
    before = {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*") if path.is_file()}
    data.counting(episodes=3)
    assert [(report.made, report.there) for report in data.export(out)] == [(2, 1)]
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
    assert [(report.made, report.there) for report in data.export(out)] == [(2, 0)]
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
            assert [(report.made, report.there) for report in data.export(out)] == [(1, 1)]
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


def test_episodes_without_video_are_left_out_and_said_so(data: DataSet, out: Path) -> None:
    data.counting("seen")
    data.counting("blind", no_render=True)
    reports = {report.key.experiment: report for report in data.export(out)}
    assert (reports["blind"].made, reports["blind"].left_out) == (0, {NO_VIDEO: 2})
    assert {episode.experiment for episode in server_contract.check_folder(out)} == {"seen"}


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


def test_damaged_episodes_are_left_out(data: DataSet, out: Path) -> None:
    data.counting()
    Path(data.root.full_path("rewards/E/random/1.npy")).unlink()
    (report,) = data.export(out)
    assert (report.made, report.left_out) == (1, {DAMAGED: 1})
    server_contract.check_folder(out)


def test_what_is_not_finite_has_numbers_that_json_can_hold(data: DataSet, out: Path) -> None:
    data.counting(env_kwargs={"actions": "box"}, action_names=("x", "y"))
    data.counting("odd", "Odd")
    data.export(out)
    odd = [episode for episode in server_contract.check_folder(out) if episode.experiment == "odd"]
    info = odd[0].arrays["infos"][1]
    assert (info["nothing"], info["half?"]) == (None, "a\N{GRINNING FACE}")
    assert odd[0].rewards.max() == 1e9


@pytest.mark.parametrize("actions", ["box", "multi_discrete", "multi_binary"])
def test_action_spaces_become_flat(data: DataSet, out: Path, actions: str) -> None:
    data.counting(env_kwargs={"actions": actions})
    with sqlite3.connect(data.root.full_path("rlhfblender.db")) as registry:  # as imported ones may be
        registry.execute("UPDATE environments SET action_space = '{}' WHERE action_space LIKE '%MultiBinary%'")
    registry.close()
    data.export(out)
    (row,) = server_contract.read_database(out)["Environment"]
    size = {"box": 2, "multi_discrete": 2, "multi_binary": 4}[actions]
    assert row["action_space_info"]["shape"] == (size,)
    assert len(server_contract.check_folder(out)) == 2


def test_pictures_of_actions_are_numbered_png_files(data: DataSet, out: Path) -> None:
    data.counting(action_names=("go", "turn_left", "stop"))
    pictures = {
        "stop": np.full((4, 4, 3), 9, np.uint8),
        "go": np.zeros((4, 4, 4), np.uint8),
        "turn_left": np.zeros((2, 2, 3), np.uint8),
    }
    store_pictures(data.root, "CountingMade-v0", pictures)
    data.export(out)
    folder = out / "data/action_labels/CountingMade-v0"
    assert sorted(path.name for path in folder.iterdir()) == ["0_go.png", "1_turn_left.png", "2_stop.png"]
    with Image.open(folder / "2_stop.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pictures["stop"])
    server_contract.check_folder(out)
    with open_registry(data.url) as registry:
        registry.set_action_names("CountingMade-v0", ["go", "left", "stop"])
    data.export(out)
    assert sorted(path.name for path in folder.iterdir()) == ["0_go.png", "2_stop.png"]
    server_contract.check_folder(out)


def test_labels_set_later_are_in_new_manifests_and_in_the_next_export(data: DataSet, out: Path) -> None:
    data.counting(episodes=1)
    data.export(out)
    request = RegistrationRequest(env="CountingMade-v0", action_labels=["a", "b", "c"])
    register_environment(request, data.root, data.url)
    data.counting(episodes=2)
    manifests = read_published(data.root, CheckpointKey("E", "random")).manifests
    assert [manifests[number].action_names for number in (0, 1)] == [None, ("a", "b", "c")]
    assert [(report.made, report.there) for report in data.export(out)] == [(1, 1)]
    (row,) = server_contract.read_database(out)["Environment"]
    assert row["action_space_info"]["labels"] == {"0": "a", "1": "b", "2": "c"}


def test_a_server_that_has_data_of_its_own_keeps_them(data: DataSet, out: Path) -> None:
    data.counting()
    data.export(out)
    with sqlite3.connect(out / "rlhfblender.db") as database:
        database.execute("UPDATE Experiment SET id = 7, exp_comment = 'mine', exp_name = 'theirs'")
        database.execute("UPDATE Project SET project_experiments = \"['theirs']\", project_description = 'hello'")
        for column in ("demo_gen_environment_config", "hyperparams", "seed", "device"):  # other versions have others
            database.execute(f"ALTER TABLE Experiment DROP COLUMN {column}")
        database.execute("CREATE TABLE Dataset (id INTEGER PRIMARY KEY)")
    database.close()
    data.counting("new")
    data.export(out, ["new"])
    tables = server_contract.read_database(out)
    assert {row["exp_name"]: row["id"] for row in tables["Experiment"]} == {"theirs": 7, "new": 8}
    assert (tables["Project"][0]["project_experiments"], tables["Project"][0]["project_description"]) == (
        ["theirs", "new"],
        "hello",
    )


def test_environments_of_similar_ids_have_folders_of_their_own(data: DataSet, out: Path) -> None:
    data.counting("A", env_id="My_Env-v0")
    data.counting("B", env_id="My-Env-v0")
    data.export(out)
    rows = server_contract.read_database(out)["Environment"]
    assert {row["registration_id"]: row["env_name"] for row in rows} == {
        "My_Env-v0": "My-Env-v0",
        "My-Env-v0": "My-Env-v0-2",
    }
    assert len(server_contract.check_folder(out)) == 4


def test_object_storage_exports_the_same(
    remote_data: DataSet, data: DataSet, tmp_path: Path, snapshot: Snapshot
) -> None:
    for source, name in ((remote_data, "remote"), (data, "local")):
        source.counting()
        source.export(tmp_path / name)
    assert snapshot(tmp_path / "remote") == snapshot(tmp_path / "local")
    server_contract.check_folder(tmp_path / "remote")


def test_an_export_stopped_half_way_is_finished_by_the_next(
    data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: Snapshot
) -> None:
    import rlhfblender_core.export.server_episodes as module

    data.counting(episodes=3)
    data.export(tmp_path / "whole")
    real, calls = module.publish_files, []
    monkeypatch.setattr(module, "_REMEMBER_EVERY", 1)

    def stops(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 4:
            remembered = read_exported(arguments[0], CheckpointKey("E", "random"))
            assert list(remembered) == [0], "a killed process has no time to write"
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
    assert [(report.made, report.there) for report in data.export(tmp_path / "out")] == [(2, 1)]
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("", "--to rlhfblender OUT"),
        ("s3://bucket/x", "on this machine"),
        ("{data}/export", "mix with"),
        ("{data}/..", "mix with"),
    ],
)
def test_a_wrong_target_is_refused(data: DataSet, out: str, says: str) -> None:
    data.counting()
    with pytest.raises(InvalidParameterError, match=says):
        open_target(out.format(data=data.root.local_folder), data.root)


def test_experiments_that_are_not_there_are_refused(data: DataSet, out: Path) -> None:
    data.counting()
    with pytest.raises(InvalidParameterError, match="Registered are: E"):
        data.export(out, ["nope"])
    Path(data.root.full_path("manifests/E/random/0.json")).unlink()
    Path(data.root.full_path("manifests/E/random/1.json")).unlink()
    with pytest.raises(DataNotUsableError, match=r"generate\.py"):
        data.export(out, ["E"])
    with pytest.raises(DataNotUsableError, match="no episodes"):
        data.export(out)
    assert not out.exists()


def test_one_export_at_a_time(data: DataSet, out: Path) -> None:
    data.counting()
    with locked(open_data_root(str(out))), pytest.raises(StorageNotUsableError, match="Another export"):
        data.export(out)


def test_a_foreign_database_is_refused_before_anything_is_written(data: DataSet, out: Path) -> None:
    data.counting()
    out.mkdir()
    (out / "rlhfblender.db").write_bytes(b"not a database, by far" * 100)
    with pytest.raises(DataNotUsableError, match="no database of RLHF-Blender"):
        data.export(out)
    assert not (out / "data").exists()
