"""docs/python.md as a reader would type it, with the data root on S3."""

import re
from pathlib import Path

import pytest

from rlhfblender_core.storage import DataRoot, list_sizes
from tests.docs.test_python import PAGE, blocks, run

pytestmark = pytest.mark.xdist_group("object-storage")


@pytest.mark.soak
def test_the_page_runs_on_object_storage(s3_root: DataRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # the registry of a data root on object storage is there
    script, count = re.subn(r'(data_root=|open_data_set\()"data"', rf'\1"{s3_root.url}"', "\n".join(blocks(PAGE)))
    assert count == 2
    printed = run(script, tmp_path)
    assert "5 made" in printed
    assert "CartPole-v1_random_experiment/random/0" in printed
    assert len(list_sizes(s3_root, "episodes/CartPole-v1_random_experiment/random")) == 5
    assert not (tmp_path / "data").exists()
