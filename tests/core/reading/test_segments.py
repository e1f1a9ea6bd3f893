import pickle
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.locations import locate
from rlhfblender_core.reading.data_set import DataSet, open_data_set


def test_segments_share_no_step_and_have_one_length(data: DataSet) -> None:
    segments = list(data.segments(length=50, seed=0))
    assert {segment.episode.experiment for segment in segments} == {"long"}  # the others are shorter
    assert len(segments) == 3 * 2
    assert all(len(segment) == len(segment.rewards) == 50 for segment in segments)
    by_episode: dict[str, list[tuple[int, int]]] = {}
    for segment in segments:
        by_episode.setdefault(segment.episode.id, []).append((segment.start, segment.stop))
    for places in by_episode.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(places)))


def test_a_seed_decides_them(data: DataSet) -> None:
    def ids(seed: int) -> list[str]:
        return [segment.id for segment in data.segments(length=20, seed=seed)]

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)
    assert [segment.id for segment in data.segments(length=20, seed=1, n=4)] == ids(1)[:4]


def test_a_segment_has_the_episode_s_rows(data: DataSet) -> None:
    segment = next(data.segments(length=30, seed=3))
    episode, rows = segment.episode, slice(segment.start, segment.stop)
    assert np.array_equal(segment.actions, episode.actions[rows])
    assert segment.segment_return == episode.rewards[rows].sum()
    assert np.array_equal(segment.observations, episode.observations[segment.start : segment.stop + 1])
    assert np.array_equal(np.stack(list(segment.frames())), episode.video()[rows])


def test_pairs_compare_different_episodes(data: DataSet) -> None:
    pairs = list(data.segment_pairs(length=20, seed=0))
    assert pairs
    assert all(one.episode.id != other.episode.id for one, other in pairs)
    ids = [segment.id for pair in pairs for segment in pair]
    assert len(ids) == len(set(ids))


def test_windows_cover_every_step_once_and_are_padded(data: DataSet) -> None:
    torch = pytest.importorskip("torch")
    windows = data.experiment("long").torch(length=50, keys=("obs", "actions", "rewards"))
    assert len(windows) == 3 * 3
    rows = [windows[n] for n in range(len(windows))]
    assert {tuple(row["obs"].shape) for row in rows} == {(50, 1)}
    for n, episode in enumerate(data.experiment("long")):
        mine = rows[3 * n : 3 * n + 3]
        kept = torch.cat([row["rewards"][~row["is_pad"]] for row in mine])
        assert np.array_equal(kept.numpy(), episode.rewards)
        assert not mine[2]["obs"][mine[2]["is_pad"]].any()


def test_windows_overlap_by_their_stride(data: DataSet) -> None:
    pytest.importorskip("torch")
    windows = data.experiment("long").torch(length=50, stride=25, keys=("obs",))
    assert len(windows) == 3 * 5  # 0, 25, 50, 75, 100
    assert windows[1]["obs"][0].item() == 25
    assert windows[4]["is_pad"].sum().item() == 20


def test_torch_s_loader_takes_them_in_processes_of_its_own(data: DataSet) -> None:
    torch = pytest.importorskip("torch")
    windows = data.torch(length=8, keys=("rewards",))
    loader = torch.utils.data.DataLoader(windows, batch_size=16, num_workers=1, multiprocessing_context="spawn")
    total = sum(batch["rewards"].sum().item() for batch in loader)
    assert total == pytest.approx(sum(episode.episode_return for episode in data))
    assert len(pickle.loads(pickle.dumps(windows))) == len(windows)


def test_what_can_t_be_cut_is_refused(data: DataSet) -> None:
    with pytest.raises(InvalidParameterError, match="at least one step, not 0"):
        next(data.segments(length=0))
    pytest.importorskip("torch")
    with pytest.raises(InvalidParameterError, match="has no 'values'"):
        data.torch(keys=("values",))[0]
    for keys, message in (((), "at least one array"), (("infos",), "'infos' isn't"), (("final_obs",), "'final_obs'")):
        with pytest.raises(InvalidParameterError, match=message):
            data.torch(keys=keys)[0]
    for length, stride in ((0, None), (5, 0), (5, -1)):
        with pytest.raises(InvalidParameterError, match="a stride of 1 or more"):
            data.torch(length, stride=stride)


@pytest.mark.parametrize("n", [-1, 1.5, "3"])
def test_how_many_is_a_number_from_0(data: DataSet, n: Any) -> None:
    for cut in (data.segments, data.segment_pairs):
        with pytest.raises(InvalidParameterError, match="n says how many at most"):
            cut(length=2, n=n)
    assert list(data.segments(length=2, n=0)) == []
    assert len(list(data.segments(length=2, n=np.int64(1)))) == 1  # type: ignore[arg-type]


def test_one_name_is_one_array(data: DataSet) -> None:
    assert set(data.torch(length=2, keys="obs")[0]) == {"obs", "is_pad"}


def test_a_data_root_may_be_a_path(data: DataSet) -> None:
    assert open_data_set(Path(data.root.url)).keys == data.keys
    assert locate(Path(data.root.url)) == locate(data.root.url)


def test_a_data_set_without_episodes_has_no_pieces(data: DataSet) -> None:
    none = data.where("length > 1e6")
    assert (len(none), none.total_steps, len(none.to_pandas())) == (0, 0, 0)
    assert [*none.segments(5), *none.segment_pairs(5), *none.steps()] == []
    pytest.importorskip("torch")
    assert len(none.torch(5)) == 0


@pytest.mark.parametrize("wrong", ["4", None, 4.5, [4], float("nan")])
def test_arguments_of_another_type_are_told_at_once(data: DataSet, wrong: Any) -> None:
    for cut in (data.segments, data.segment_pairs):
        with pytest.raises(InvalidParameterError, match="length is a whole number, not"):
            cut(length=wrong)
        with pytest.raises(InvalidParameterError, match="seed is a whole number, not"):
            cut(length=2, seed=wrong)
    with pytest.raises(InvalidParameterError, match="number is a whole number, not"):
        data.episode(wrong)
    with pytest.raises(InvalidParameterError, match="condition is a function, not"):
        data.filter_episodes(wrong)
    if not isinstance(wrong, str):
        with pytest.raises(InvalidParameterError, match="condition is a text, not"):
            data.where(wrong)


def test_an_index_beyond_the_end_says_how_many_there_are(data: DataSet) -> None:
    for episodes in (data, data.where("length > 0")):
        with pytest.raises(IndexError, match=f"There is no episode 99; there are {len(data)}, 0 to {len(data) - 1}"):
            episodes[99]
    with pytest.raises(IndexError, match="There is no step 999; there are"):
        data[0].frame(999)
    with pytest.raises(TypeError, match="An index of episodes is a whole number, not '1'"):
        data["1"]
