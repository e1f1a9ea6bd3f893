"""What a data set gives to whoever uses it, compared with the files."""

import json
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rlhfblender_core import open_data_set
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError
from rlhfblender_core.reading.data_set import DataSet, find_episodes
from rlhfblender_core.storage import DataRoot, open_data_root
from tests.core.reading.conftest import LENGTHS


def test_the_episodes_come_in_order(data: DataSet) -> None:
    assert data.experiments == ("long", "short", "structured")
    assert data.checkpoints == ("random",)
    assert [episode.id for episode in data] == [
        f"{name}/random/{n}" for name in data.experiments for n in range(2 if name == "structured" else 3)
    ]
    assert (data.total_episodes, data.total_steps) == (8, 3 * 130 + 3 * 7 + 2 * 6)


def test_any_place_in_the_order_can_be_asked_for(data: DataSet) -> None:
    in_order = list(data)
    assert [data[n].id for n in range(len(data))] == [episode.id for episode in in_order]
    assert data[-1].id == in_order[-1].id
    some = data.where("number != 1")
    for part in (slice(2, 5), slice(None, None, -1), slice(-3, None, 2), slice(6, 1, -2), slice(5, 5)):
        assert [episode.id for episode in data[part]] == [episode.id for episode in in_order[part]]
        assert [episode.id for episode in some[part]] == [one.id for one in list(some)[part]]
    with pytest.raises(IndexError):
        data[len(data)]


def test_the_arrays_are_the_file_s(data: DataSet, folder: Path) -> None:
    episode = data.experiment("short").checkpoint("random").episode(1)
    with np.load(folder / "episodes/short/random/1.npz", allow_pickle=False) as file:
        assert set(episode.keys()) == set(file)
        for name in file:
            assert np.array_equal(episode[name], file[name]), name
            assert episode[name].dtype == file[name].dtype
        assert np.array_equal(episode.observations, np.concatenate([file["obs"], file["final_obs"][np.newaxis]]))
        assert np.array_equal(episode.actions, file["actions"])
        assert np.array_equal(episode.rewards, file["rewards"])
        assert np.array_equal(episode.terminations, file["terminated"])
        assert np.array_equal(episode.truncations, file["truncated"])
        assert episode.infos == [json.loads(text) for text in file["infos"].tolist()]
        assert episode.episode_return == float(file["episode_return"])
    assert np.array_equal(episode.cumulative_rewards, np.load(folder / "rewards/short/random/1.npy"))
    assert np.array_equal(episode.uncertainty, np.load(folder / "uncertainty/short/random/1.npy"), equal_nan=True)


def test_observations_of_a_dict_come_by_their_keys(data: DataSet) -> None:
    observations = data.experiment("structured")[0].observations
    assert set(observations) == {"position", "mission", "inner.flags", "inner.pair.0", "inner.pair.1"}
    assert observations["mission"].tolist() == [f"go {n}" for n in range(7)]
    assert observations["position"].shape == (7, 2)


def test_conditions_are_those_of_the_commands_and_combine(data: DataSet) -> None:
    assert [episode.id for episode in data.where("length < 100 and number >= 1")] == [
        "short/random/1",
        "short/random/2",
        "structured/random/1",
    ]
    chosen = data.where("length<100").filter_episodes(lambda episode: episode.number == 1).where("experiment=='short'")
    assert [episode.id for episode in chosen] == ["short/random/1"]
    assert len(data.experiment("long").where(f"return > {data[0].episode_return - 1}")) > 0
    with pytest.raises(InvalidParameterError, match="did you mean return"):
        data.where("retrun > 100")


def test_a_data_set_with_conditions_goes_to_other_processes(data: DataSet) -> None:
    chosen = data.where("length < 100 and number >= 1")
    assert [episode.id for episode in pickle.loads(pickle.dumps(chosen))] == [episode.id for episode in chosen]


@pytest.mark.parametrize("name", LENGTHS)
def test_each_frame_is_its_step_s(data: DataSet, name: str) -> None:
    # Brighter by 20 a step: a frame too early or too late is another one. Over two key frames in the long one.
    episode = data.experiment(name)[0]
    frames = list(episode.frames())
    assert len(frames) == len(episode) == LENGTHS[name]
    assert frames[0].shape == (17, 24, 3)
    for t in [*range(8), *range(0, len(episode), 13), len(episode) - 1]:
        if t < len(episode):
            assert np.array_equal(episode.frame(t), frames[t]), t
            assert abs(int(frames[t].mean()) - min(255, 20 * t)) < 4, t
    assert np.array_equal(episode.frame(-1), frames[-1])
    assert np.array_equal(episode.video(), np.stack(frames))
    with pytest.raises(IndexError):
        episode.frame(len(episode))


def test_an_episode_without_video_says_so(data: DataSet) -> None:
    episode = data.experiment("structured")[0]
    assert not episode.has_video
    for read in (lambda: episode.frame(0), lambda: next(episode.frames())):
        with pytest.raises(DataNotUsableError, match="without a video"):
            read()


def test_a_table_has_a_row_per_episode(data: DataSet) -> None:
    table = data.to_pandas()
    assert len(table) == 8
    assert table.groupby("experiment")["episode_length"].sum().to_dict() == {"long": 390, "short": 21, "structured": 12}
    first = table.iloc[0]
    assert (first["experiment"], first["episode"], first["policy"]) == ("long", 0, "random")
    assert first["episode_return"] == data[0].episode_return


def test_there_is_a_row_per_step(data: DataSet) -> None:
    episode = data.experiment("short")[2]
    rows = list(episode.steps())
    assert [row["t"] for row in rows] == list(range(7))
    for t, row in enumerate(rows):
        assert (row["experiment"], row["checkpoint"], row["episode"]) == ("short", "random", 2)
        assert np.array_equal(row["obs"], episode["obs"][t])
        assert (row["actions"], row["rewards"]) == (episode.actions[t], episode.rewards[t])
        assert row["infos"] == episode.infos[t]
    assert sum(1 for _ in data.steps()) == data.total_steps


def test_episodes_can_be_filtered(data: DataSet) -> None:
    long = data.filter_episodes(lambda episode: episode.episode_length > 10)
    assert [episode.id for episode in long] == [f"long/random/{n}" for n in range(3)]
    assert len(long) == long.total_episodes == 3
    assert long[-1].id == "long/random/2"
    chained = long.filter_episodes(lambda episode: episode.number > 0)
    assert [episode.number for episode in chained] == [1, 2]


def test_what_isn_t_there_is_said_in_one_line(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match=r"no experiment 'shrot'.*Did you mean 'short'"):
        data.experiment("shrot")
    with pytest.raises(InvalidParameterError, match="Episode 0 of which checkpoint"):
        data.episode(0)
    with pytest.raises(InvalidParameterError, match="short/random has no episode 3"):
        data.experiment("short").episode(3)
    with pytest.raises(KeyError, match="no 'observation'; it has obs"):
        _ = data[0]["observation"]
    with pytest.raises(DataNotUsableError, match="no episodes in"):
        open_data_set(str(tmp_path / "nothing"))


def test_damaged_and_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    arrays, video = copy / "episodes/short/random/0.npz", copy / "renders/short/random/0.mp4"
    arrays.write_bytes(arrays.read_bytes()[:-40])
    video.write_bytes(video.read_bytes()[:300])
    (copy / "episodes/short/random/1.npz").unlink()
    (copy / "manifests/short/random/2.json").write_text("{}")
    data = open_data_set(str(copy)).experiment("short")
    with pytest.raises(DataNotUsableError, match=r"0\.npz can't be read: .*verify"):
        _ = data[0].actions
    with pytest.raises(DataNotUsableError, match="has 0 frames instead of 7"):
        list(data[0].frames())
    with pytest.raises(DataNotUsableError, match=r"1\.npz is gone"):
        _ = data[1].actions
    with pytest.raises(DataNotUsableError, match=r"2\.json is not a manifest"):
        _ = data[2].seed


def test_the_same_comes_from_a_file_system_that_isn_t_local(data: DataSet, folder: Path, tmp_path: Path) -> None:
    root: DataRoot = open_data_root(f"memory://{tmp_path.name}")
    for file in folder.rglob("*"):
        if file.is_file():
            root.fs.pipe_file(root.full_path(str(file.relative_to(folder))), file.read_bytes())
    remote = find_episodes(root)
    assert [episode.id for episode in remote] == [episode.id for episode in data]
    ours, theirs = data.experiment("long")[1], remote.experiment("long")[1]
    assert np.array_equal(ours.observations, theirs.observations)
    assert np.array_equal(ours.frame(100), theirs.frame(100))
    assert np.array_equal(ours.uncertainty, theirs.uncertainty, equal_nan=True)
    assert data.to_pandas().equals(remote.to_pandas())


@pytest.mark.soak
def test_memory_is_flat_over_many_episodes(folder: Path, tmp_path: Path) -> None:
    def peak(episodes: int) -> int:
        copy = tmp_path / str(episodes)
        (manifests := copy / "manifests/short/random").mkdir(parents=True)
        (arrays := copy / "episodes/short/random").mkdir(parents=True)
        (uncertainty := copy / "uncertainty/short/random").mkdir(parents=True)
        for n in range(episodes):
            (manifests / f"{n}.json").symlink_to(folder / "manifests/short/random/0.json")
        for made, suffix in ((arrays, "npz"), (uncertainty, "npy")):
            (made / f"0.{suffix}").symlink_to(folder / made.parent.parent.name / f"short/random/0.{suffix}")
        data = open_data_set(str(copy))
        tracemalloc.start()
        assert sum(1 for _ in data.steps()) == episodes * 7
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(1000) < peak(100) + 500_000  # a name of a file takes some 200 bytes
