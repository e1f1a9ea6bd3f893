from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.environments import EnvironmentSpec
from rlhfblender_core.rollout.agents import RandomAgent
from rlhfblender_core.rollout.options import RolloutOptions
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, close_session
from rlhfblender_core.storage import open_data_root
from tests.support.generating import generate, request
from tests.support.verifying import EPISODES, database

SettingsMaker = Callable[..., RolloutSettings]


@pytest.fixture
def settings() -> SettingsMaker:
    """Makes settings of a random agent in one of environments_for_tests; its keyword arguments by name."""

    def make(env: str = "Counting", **fields: Any) -> RolloutSettings:
        options = {name: fields.pop(name) for name in list(fields) if name in RolloutOptions.names()}
        spec = EnvironmentSpec(
            f"{env}ForTests-v0", f"tests.support.environments_for_tests.counting:{env}", kwargs=fields
        )
        return RolloutSettings(spec, RandomAgent(), RolloutOptions(**{"fps": 20.0, **options}))

    return make


@pytest.fixture
def shard(settings: SettingsMaker) -> Iterator[Callable[..., Shard]]:
    """Makes shards of such settings."""

    def make(env: str = "Counting", episodes: tuple[int, ...] = (0,), **fields: Any) -> Shard:
        return Shard(CheckpointKey("exp", "random"), settings(env, **fields), episodes)

    yield make
    close_session()


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a few episodes, for tests to copy."""
    root = open_data_root(str(tmp_path_factory.mktemp("data-set") / "data"))
    generate(root, database(root), request(EPISODES))
    return root.local_folder
