from collections.abc import Callable
from pathlib import Path

import pytest

from rlhfblender_core.import_data import ImportedBatch, ImportRequest, import_episodes, plan_import
from rlhfblender_core.storage import open_data_root

ImportAll = Callable[..., list[ImportedBatch]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def import_all(source: Path, target: Path, tmp_path: Path) -> ImportAll:
    """Imports all checkpoints of the source into the target; keywords are the request's."""

    def run(**options: object) -> list[ImportedBatch]:
        request = {"folder": source, "exp": "Mine", "env": "Made-v0", **options}
        root = open_data_root(str(request.pop("data_root", target)))
        staging = tmp_path / "staging"
        staging.mkdir(exist_ok=True)
        plan = plan_import(ImportRequest(**request), None)
        return [import_episodes(root, found, found.numbers(), to, staging) for found, to in plan.work]

    return run
