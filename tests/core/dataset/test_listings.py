"""Listings of a checkpoint: what there is, by episode, in memory that hardly grows with it."""

import tracemalloc
from pathlib import Path

import pytest

from rlhfblender_core.dataset.layout import EXTENSIONS, ArtifactKind, CheckpointKey, artifact_folder, manifest_folder
from rlhfblender_core.dataset.listings import list_files
from rlhfblender_core.dataset.size_tables import size_table
from rlhfblender_core.storage import open_data_root

KEY = CheckpointKey("E", "random")
REWARDS, EPISODES = ArtifactKind.REWARDS, ArtifactKind.EPISODES


def make_files(root: Path, folder: str, *names: str) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / folder / name).write_bytes(b"12345")


def test_episodes_come_by_number_with_what_there_is_of_each(tmp_path: Path) -> None:
    make_files(tmp_path, manifest_folder(KEY), "0.json", "10.json", "2.json", "02.json", ".3.json.part")
    make_files(tmp_path, artifact_folder(EPISODES, KEY), "0.npz", "2.npz", "900000000.npz", "1.npy")
    make_files(tmp_path, artifact_folder(REWARDS, KEY), "2.npy")
    for folder in ("5.npy", "mine"):
        (tmp_path / artifact_folder(REWARDS, KEY) / folder).mkdir()
    files = list_files(open_data_root(str(tmp_path)), KEY)
    found = [
        (one.number, one.has_manifest, one.has_row, one.kinds, one.sizes)
        for one in files.episodes(size_table([(7, 0), (2, 0)]))
    ]
    assert found == [
        (0, True, False, (EPISODES,), (5,)),
        (2, True, True, (EPISODES, REWARDS), (5, 5)),
        (7, False, True, (), ()),
        (10, True, False, (), ()),
        (900_000_000, False, False, (EPISODES,), (5,)),
    ]
    assert files.unknown_files == (
        "episodes/E/random/1.npy",
        "manifests/E/random/.3.json.part",
        "manifests/E/random/02.json",
        "rewards/E/random/mine/",
    )


def test_a_checkpoint_that_is_not_there_has_nothing(tmp_path: Path) -> None:
    files = list_files(open_data_root(str(tmp_path)), KEY)
    assert (list(files.episodes({})), files.unknown_files) == ([], ())


@pytest.mark.parametrize("numbers", [range(1000), range(0, 10**8, 10**5), [0, 10**8]], ids=["all", "few", "two"])
def test_a_table_is_a_mapping_whatever_it_is_kept_in(numbers: "list[int]") -> None:
    table = size_table((number, number % 7) for number in reversed(numbers))
    assert dict(table) == {number: number % 7 for number in numbers}
    assert list(table) == list(numbers)
    assert (len(table), table.get(10**8 + 1), table.get(1, -1)) == (len(numbers), None, 1 if 1 in numbers else -1)
    assert (1 in table, 10**8 + 1 in table) == (1 in numbers, False)
    with pytest.raises(KeyError):
        table[10**8 + 1]


def test_memory_hardly_grows_with_the_files(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        for kind in (EPISODES, REWARDS):
            make_files(folder, artifact_folder(kind, KEY), *(f"{number}{EXTENSIONS[kind]}" for number in range(count)))
        root = open_data_root(str(folder))
        tracemalloc.start()
        assert sum(one.kinds == (EPISODES, REWARDS) for one in list_files(root, KEY).episodes({})) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)  # what is loaded on first use doesn't count
    few, many = peak(500), peak(4500)
    assert (many - few) / 4000 < 128, (few, many)  # bytes per episode of two files; 500 and more as objects
