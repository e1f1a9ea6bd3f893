from pathlib import Path

import pytest

from rlhfblender_core.reading.data_set import DataSet, find_episodes
from rlhfblender_core.storage import open_data_root
from tests.support.generating import generate, request
from tests.support.verifying import database

#: Lengths of the experiments' episodes.
LENGTHS = {"long": 130, "short": 7}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three experiments; not to be changed."""
    root = open_data_root(str(tmp_path_factory.mktemp("reading") / "data"))
    for name, length in LENGTHS.items():
        kwargs = {"length": length, "height": 17}
        generate(root, database(root), request(3, env=f"{name.title()}-v0", exp=name, env_kwargs=kwargs, fps=29.97))
    structured = "tests.support.environments_for_tests.counting:Structured"
    generate(
        root,
        database(root),
        request(2, env="Structured-v0", exp="structured", env_gym_entrypoint=structured, no_render=True),
    )
    return root.local_folder


@pytest.fixture
def data(folder: Path) -> DataSet:
    return find_episodes(open_data_root(str(folder)))
