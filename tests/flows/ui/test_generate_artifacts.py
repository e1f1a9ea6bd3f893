"""What Prefect's server holds for its UI after a run."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prefect import flow

from flows.generate import generate
from flows.ui.generate_artifacts import artifact_key
from flows.ui.watch_artifacts import show_watch_report
from rlhfblender_core.watch import Finding, WatchRow

pytestmark = pytest.mark.usefixtures("prefect")


def artifacts_of(flow_run_id: Any) -> dict[str, Any]:
    from prefect import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
    with get_client(sync_client=True) as client:
        return {str(found.type): found for found in client.read_artifacts(artifact_filter=wanted)}


def pictures(markdown: str) -> list[Image.Image]:
    urls = re.findall(r"\(data:image/\w+;base64,([^)]+)\)", markdown)
    return [Image.open(io.BytesIO(base64.b64decode(url))) for url in urls]


def run_of(state: Any) -> Any:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


def run(data_root: Path, **parameters: Any) -> Any:
    return generate(
        **{"env": "CartPole-v1", "num_episodes": 2, "data_root": str(data_root), **parameters}, return_state=True
    )


def test_a_run_leaves_table_picture_and_progress(data_root: Path, trained_cartpole: Path) -> None:
    state = run(data_root, exp="Stüdy 1", model_path=str(trained_cartpole), checkpoints=[0, 128], project="P")
    flow_run = run_of(state)
    assert flow_run.name == "generate Stüdy 1 trained 0 128"
    assert set(flow_run.tags) == {"env:CartPole-v1", "exp:Stüdy 1", "project:P"}
    found = artifacts_of(flow_run.id)
    assert found["progress"].data == 100.0
    assert found["progress"].description.startswith("4 of 4 episodes, ")
    assert found["table"].key == "results-st-dy-1"
    assert '"checkpoint": "random", "made": "2", "already there": "0", "failed": "0"' in found["table"].data
    plot, sheet = pictures(found["markdown"].data)
    assert plot.size == (820, 320)
    assert sheet.width > 2 * 132
    assert f"`{data_root}/renders/Stüdy 1/<checkpoint>/`" in found["markdown"].data


def test_a_run_without_videos_has_a_plot_and_no_thumbnails(data_root: Path) -> None:
    state = run(data_root, random=True, no_render=True)
    assert len(pictures(artifacts_of(state.state_details.flow_run_id)["markdown"].data)) == 1


def test_a_run_that_makes_nothing_shows_the_same_results(data_root: Path) -> None:
    run(data_root, random=True)
    state = run(data_root, random=True)
    found = artifacts_of(state.state_details.flow_run_id)
    assert "progress" not in found
    assert '"made": "0", "already there": "2"' in found["table"].data


def test_a_refused_run_has_its_reason_as_state_and_no_artifacts(data_root: Path) -> None:
    state = run(data_root, env="CartPol-v1", random=True)
    assert state.name == "Refused"
    assert "CartPole-v1" in state.message
    assert artifacts_of(state.state_details.flow_run_id) == {}


@pytest.mark.parametrize("name", ["a", "A b_c", "ALE-Pong-v5", "日本"])
def test_artifact_keys_are_what_prefect_accepts(name: str) -> None:
    assert re.fullmatch(r"results(-[a-z0-9]+)*", artifact_key("results", name))


def test_words_of_others_are_no_markup() -> None:
    @flow
    def look() -> None:
        reason = "![x](https://example.org/p.png) <img src=y> | and `more`"
        show_watch_report("e", "data", [WatchRow("e", "100", Finding.UNUSABLE, reason)])

    shown = artifacts_of(look(return_state=True).state_details.flow_run_id)["markdown"].data
    assert r"| !\[x\](https://example.org/p.png) \<img src=y\> \| and \`more\` |" in shown
