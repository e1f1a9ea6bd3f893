"""Which workers and which folder a task of a run finds in this process."""

from pathlib import Path

import pytest

from rlhfblender_core.errors import RunStoppedError
from rlhfblender_core.layout import RUNS
from rlhfblender_core.sharing import Making
from rlhfblender_core.storage import open_data_root
from rlhfblender_core.workers import Workers
from tasks.engines import engine_of, open_engine

MAKING = Making("E", {"random": "a request"})


def test_a_task_that_comes_after_its_run_is_over_does_no_work(tmp_path: Path) -> None:
    """It must not take itself for one on a cluster's machine, which nobody could stop any more."""
    root = open_data_root(str(tmp_path / "data"))
    with open_engine("run", root, Workers(0, tmp_path), MAKING) as engine, engine_of("run", root, MAKING) as found:
        assert found is engine
    with pytest.raises(RunStoppedError), engine_of("run", root, MAKING):
        pass
    with engine_of("a run of another machine", root, MAKING) as own:
        assert own is not engine
        assert own.staging.parent.name == RUNS
