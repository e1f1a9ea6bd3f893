from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.storage import open_data_root
from tests.support.exporting import DataSet


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where an export may go; nothing is there yet."""
    return tmp_path / "out"


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """An empty data set on the local disk."""
    return DataSet(open_data_root(str(tmp_path / "data")), f"sqlite:///{tmp_path}/data/rlhfblender.db", tmp_path)


@pytest.fixture
def remote_data(tmp_path: Path) -> DataSet:
    """An empty data set on a file system that isn't local."""
    root = open_data_root(f"memory://{tmp_path.name}")
    return DataSet(root, f"sqlite:///{tmp_path}/registry.db", tmp_path)


@pytest.fixture(scope="session")
def mixed_data(tmp_path_factory: pytest.TempPathFactory, trained_cartpole: Path) -> DataSet:
    """What the contract is checked on; not to be changed: trained, random, Atari, continuous, structured."""
    folder = tmp_path_factory.mktemp("mixed")
    mixed = DataSet(open_data_root(str(folder / "data")), f"sqlite:///{folder}/data/rlhfblender.db", folder)
    mixed.generate(
        env="CartPole-v1",
        exp="trained_cartpole",
        model_path=str(trained_cartpole),
        checkpoints=(0, 128, 256, "final"),
        num_episodes=2,
        max_steps_per_episode=20,
        action_names=("left", "right"),
    )
    short: dict[str, Any] = {"random": True, "num_episodes": 2, "max_steps_per_episode": 12}
    mixed.generate(env="Pendulum-v1", project="Second", **short)
    mixed.generate(env="ALE/Pong-v5", exp="pong", **short)
    mixed.counting("structured", "Structured", project="Second", env_id="Struc_tured-v0")
    return mixed
