"""The flows verify and delete: exit states, repair through the same tasks as generate."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.cli.arguments import REFUSED
from flows.delete import delete
from flows.verify import Verification, current_printer, verify
from rlhfblender_core.storage import open_data_root
from tests.support.generating import generate, request

pytestmark = pytest.mark.usefixtures("prefect")


def tables_of(state: Any) -> dict[str, list[dict[str, Any]]]:
    """What Prefect's UI shows of the run."""
    from prefect import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        return {
            str(found.key): json.loads(found.data)
            for found in client.read_artifacts(artifact_filter=wanted)
            if found.key
        }


def test_verify_repairs_and_delete_deletes(
    tmp_path: Path, snapshot: Callable[[Path], dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLHFBLENDER_TRUSTED_PACKAGES", "tests")
    folder = tmp_path / "data"
    url = f"sqlite:///{folder / 'rlhfblender.db'}"
    locations = {"data_root": str(folder), "database_url": url}
    generate(open_data_root(str(folder)), url, request(3))
    before = snapshot(folder)
    seen: list[Verification] = []
    token = current_printer.set(seen.append)
    assert verify(**locations, workers=1, return_state=True).is_completed()
    (folder / "renders/E/random/1.mp4").write_bytes(b"x")
    (folder / "manifests/E/random/2.json").unlink()
    state = verify(**locations, workers=1, return_state=True)
    assert state.is_failed()
    assert state.message.startswith("2 problems: ")
    broken = {"renders/E/random/1.mp4", "manifests/E/random/2.json"}
    assert {problem.path for problem in seen[-1].left} == broken
    tables = tables_of(state)
    row = {"experiment": "E", "checkpoint": "random", "episodes": 2, "problems": 2, "left": 2}
    assert tables["verify-everything"] == [row]
    assert {line["file"]: line["remedy"] for line in tables["problems-everything"]} == dict.fromkeys(
        broken, "make the episode again"
    )
    state = verify(**locations, exp="E", repair=True, workers=1, return_state=True)
    assert state.is_completed()
    assert tables_of(state)["verify-e"] == [{**row, "episodes": 3, "left": 0}]
    current_printer.reset(token)
    assert snapshot(folder) == before
    assert verify(**locations, exp="F", return_state=True).name == REFUSED
    assert delete(**locations, exp="E", return_state=True).name == REFUSED
    assert snapshot(folder) == before
    assert delete(**locations, exp="E", yes=True, return_state=True).is_completed()
    assert snapshot(folder) == {}
