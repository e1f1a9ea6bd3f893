"""Listings of a checkpoint's files."""

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.published import list_episode_files
from rlhfblender_core.storage import open_data_root


def test_sizes_are_those_of_the_files_however_the_numbers_lie(tmp_path) -> None:
    root = open_data_root(str(tmp_path))
    wanted = {"renders": {0: 3, 1: 0, 5: 7}, "rewards": {10**8: 2, 4: 1}, "episodes": {2: 9}}
    for kind, extension in (("renders", "mp4"), ("rewards", "npy"), ("episodes", "npz")):
        folder = tmp_path / kind / "E/random"
        folder.mkdir(parents=True)
        for number, size in wanted[kind].items():
            (folder / f"{number}.{extension}").write_bytes(b"x" * size)
    found = list_episode_files(root, CheckpointKey("E", "random"))
    assert {kind: dict(sizes) for kind, sizes in found.items() if sizes} == wanted
    assert [found["renders"].get(number) for number in (-1, 0, 2, 6, 10**8)] == [None, 3, None, None, None]
    assert [len(sizes) for sizes in found.values()].count(0) == 3
