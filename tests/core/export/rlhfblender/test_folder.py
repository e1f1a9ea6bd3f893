"""The export to RLHF-Blender: the whole contract on real data, then values that a server or a browser stumbles over."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from rlhfblender_core.dataset.action_labels import store_pictures
from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.export.rlhfblender.arrays import server_rewards
from rlhfblender_core.export.rlhfblender.episodes import DAMAGED, NO_VIDEO
from rlhfblender_core.export.rlhfblender.space_info import action_info
from rlhfblender_core.import_data import ImportRequest, import_episodes, plan_import
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import open_data_root
from tests.support import server_contract
from tests.support.exporting import DataSet

Snapshot = Callable[[Path], dict[str, str]]


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


def test_probabilities_of_q_learning_are_the_softmax_of_its_values(data: DataSet, out: Path, tmp_path: Path) -> None:
    from stable_baselines3 import DQN

    model = tmp_path / "rl_model_100_steps.zip"
    DQN("MlpPolicy", "CartPole-v1", seed=0, device="cpu", buffer_size=1).save(model)
    data.generate(env="CartPole-v1", exp="q", model_path=str(model), num_episodes=1, max_steps_per_episode=5)
    data.export(out)
    (episode,) = server_contract.check_folder(out)
    probs = episode.arrays["probs"][:, 0]
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(-(probs * np.log(probs)).sum(axis=1), episode.uncertainty, rtol=1e-4)


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


def test_episodes_without_video_are_left_out_and_said_so(data: DataSet, out: Path) -> None:
    data.counting("seen")
    data.counting("blind", no_render=True)
    reports = {report.key.experiment: report for report in data.export(out)}
    assert (reports["blind"].made, reports["blind"].left_out) == (0, {NO_VIDEO: 2})
    assert {episode.experiment for episode in server_contract.check_folder(out)} == {"seen"}


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


def test_vast_spaces_and_rewards_that_add_up_to_infinity(data: DataSet, out: Path) -> None:
    data.counting(env="Vast", env_kwargs={"reward": "vast"})
    data.export(out)
    served = server_contract.check_folder(out)
    assert served[0].rewards.tolist() == [1e308] * 5
    largest = np.finfo(np.float64).max
    assert server_rewards(served[0].rewards, "cumulative").tolist() == [1e308, *[largest] * 4]
    assert action_info(spaces.Discrete(2**40), None)["labels"] == {}


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


@pytest.mark.parametrize("name", ["0_go.png", "0_links.png"])
def test_pictures_that_somebody_has_put_there_stay_as_they_are(data: DataSet, out: Path, name: str) -> None:
    data.counting(action_names=("go", "turn_left", "stop"))
    store_pictures(data.root, "CountingMade-v0", {"go": np.zeros((4, 4, 3), np.uint8)})
    folder = out / "data/action_labels/CountingMade-v0"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(folder / name)
    theirs = (folder / name).read_bytes()
    for _ in range(2):
        data.export(out)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: theirs}
    (folder / name).unlink()
    data.export(out)
    assert [path.name for path in folder.iterdir()] == ["0_go.png"]
    Image.new("RGB", (8, 8), "red").save(folder / "0_go.png")  # ours, painted over
    data.export(out)
    assert (folder / "0_go.png").read_bytes() == theirs


def test_an_export_that_is_imported_is_exported_as_it_was(
    data: DataSet, out: Path, tmp_path: Path, snapshot: Snapshot
) -> None:
    data.counting(env_display_name="Counting", env_description="counts", action_names=("a", "b", "c"))
    data.export(out)
    (tmp_path / "staging").mkdir()
    copy = DataSet(open_data_root(str(tmp_path / "copy")), f"sqlite:///{tmp_path}/copy/rlhfblender.db", tmp_path)
    plan = plan_import(ImportRequest(out, "E", "CountingMade-v0"), None)
    with open_registry(copy.url) as registry:
        registry.ensure_environment(plan.environment)
        registry.ensure_experiment(plan.experiment)
        for record, (found, to) in zip(plan.checkpoint_records(), plan.work, strict=True):
            registry.ensure_checkpoint(record)
            batch = import_episodes(copy.root, found, found.numbers(), to, tmp_path / "staging")
            assert (batch.made, batch.faults, batch.notes) == ((0, 1), (), ())
    copy.export(tmp_path / "again")
    # JPEG loses something each time, and pickles of equal infos needn't be the same.
    first, second = (
        {name: digest for name, digest in snapshot(folder / "data").items() if name.endswith((".npy", ".mp4"))}
        for folder in (out, tmp_path / "again")
    )
    assert second == first
    for one, other in zip(*map(server_contract.check_folder, (out, tmp_path / "again")), strict=True):
        np.testing.assert_equal(other.arrays, one.arrays)
    rows, again = (server_contract.read_database(folder)["Environment"][0] for folder in (out, tmp_path / "again"))
    assert again | {"gym_entry_point": rows["gym_entry_point"]} == rows


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
