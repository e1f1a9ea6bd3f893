"""How many episodes each checkpoint gets where nobody says: as many as the experiment was asked for, or has."""

from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.generate import generate
from rlhfblender_core.locations import locate
from rlhfblender_core.registry import open_registry
from rlhfblender_core.watch import find_experiments

RANDOM = {"env": "CartPole-v1", "exp": "study", "random": True, "no_render": True, "max_steps_per_episode": 3}


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Number of episodes that a call makes."""

    def run(**flags: Any) -> int:
        report = generate(**{"data_root": tmp_path / "data", "workers": 1, **flags}).report
        assert report is not None
        assert not report.failed
        return int(report.made)

    return run


def test_a_new_experiment_gets_ten_and_another_as_many_as_it_was_asked_for(made: Any) -> None:
    assert made(**RANDOM) == 10
    assert made(**RANDOM, num_episodes=12) == 2
    assert made(**RANDOM) == 0
    assert made(**{**RANDOM, "exp": "small"}, num_episodes=3) == 3
    assert made(**{**RANDOM, "exp": "small"}) == 0
    assert made(exp="small", random=True, num_episodes=1) == 0
    assert made(exp="small", random=True) == 0


def test_each_checkpoint_gets_as_many_as_the_others(made: Any, trained_cartpole: Path, tmp_path: Path) -> None:
    trained = {"exp": "study", "no_render": True, "max_steps_per_episode": 3}
    asked = {"env": "CartPole-v1", "model_path": str(trained_cartpole), "checkpoints": [128], "num_episodes": 3}
    assert made(**asked, **trained) == 3
    assert made(exp="study", checkpoints=[0, 256]) == 6
    locations = locate(tmp_path / "data")
    assert find_experiments(["study"], locations)[0].following.num_episodes == 3  # type: ignore[union-attr]


def test_what_was_cut_short_or_deleted_is_finished(made: Any, tmp_path: Path) -> None:
    assert made(**RANDOM, num_episodes=4) == 4
    with open_registry(locate(tmp_path / "data").database_url) as registry:
        registry.forget_episodes("study", "random", [1, 3])
    for number in (1, 3):
        for path in (tmp_path / "data").rglob(f"{number}.*"):
            path.unlink()
    assert made(**RANDOM) == 2


def test_of_an_experiment_that_is_only_registered_nothing_is_known(made: Any, tmp_path: Path) -> None:
    generate(**RANDOM, register_only=True, data_root=tmp_path / "data")
    assert made(**{**RANDOM, "num_episodes": None}) == 10
