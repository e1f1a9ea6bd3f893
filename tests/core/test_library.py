"""The library's public face."""

from pathlib import Path

import pytest

import rlhfblender_core
from rlhfblender_core.errors import InvalidParameterError, RLHFBlenderError

PUBLIC = [
    "delete", "export", "gallery", "generate", "import_data", "open_data_set", "register", "repair", "train",
    "verify", "watch",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert rlhfblender_core.__all__ == PUBLIC
    assert all(callable(getattr(rlhfblender_core, name)) for name in PUBLIC)


def test_generate_gives_the_episodes_and_what_was_made(tmp_path: Path) -> None:
    data = rlhfblender_core.generate(
        env="CartPole-v1", random=True, num_episodes=2, no_render=True, data_root=str(tmp_path), workers=0
    )
    assert data.report is not None
    assert (data.report.made, len(data)) == (2, 2)
    assert data.report.checkpoints[0].mean_return == sum(episode.episode_return for episode in data) / 2


@pytest.mark.parametrize("name", ["num_episode", "envs", "runner", "options"])
def test_a_misspelt_flag_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"'{name}' is no part of a request"):
        rlhfblender_core.generate(env="CartPole-v1", random=True, data_root=str(tmp_path / "data"), **{name: 3})
    assert not (tmp_path / "data").exists()


def test_a_place_whose_name_is_too_long_is_told(tmp_path: Path) -> None:
    place = str(tmp_path / ("x" * 300))
    for use in (
        lambda: rlhfblender_core.verify(data_root=place),
        lambda: rlhfblender_core.gallery(data_root=place),
        lambda: rlhfblender_core.import_data(place, data_root=str(tmp_path / "data")),
        lambda: rlhfblender_core.import_data(place, exp="E", env="CartPole-v1", data_root=str(tmp_path / "data")),
    ):
        with pytest.raises(RLHFBlenderError):
            use()


def test_results_are_printed_in_words(tmp_path: Path) -> None:
    root, exp = str(tmp_path / "data"), "CartPole-v1_random_experiment"
    data = rlhfblender_core.generate(
        env="CartPole-v1", random=True, num_episodes=2, no_render=True, data_root=root, workers=0
    )
    assert repr(data) == f"<DataSet {root}: {exp}/random>"
    assert "those that meet 1 condition>" in repr(data.where("length > 3"))
    assert str(data.report) == f"2 episodes made, 0 already there, in {root}"
    assert str(rlhfblender_core.verify(data_root=root)) == "2 episodes, 8 files checked: nothing is wrong."
    next((tmp_path / "data/rewards").rglob("1.npy")).unlink()
    problem, _, line = str(rlhfblender_core.verify(data_root=root)).partition("\n")
    assert problem == f"rewards/{exp}/random/1.npy: is missing"
    assert line == "2 episodes, 8 files checked: 1 problem left, 0 repaired."
    assert str(rlhfblender_core.repair(data_root=root)).endswith("1 problem repaired, nothing is wrong any more.")
    deletion = str(rlhfblender_core.delete(exp=exp, episodes="1", data_root=root))
    assert deletion.startswith(f"episodes (--episodes 1) of experiment {exp} (random): 1 episode, 4 files")
    assert str(rlhfblender_core.export(str(tmp_path / "out"), to="hdf5", data_root=root)).startswith(
        "1 episode exported"
    )
    assert str(rlhfblender_core.gallery(data_root=root)).startswith("1 episode (1 without video) of 1 checkpoint")
