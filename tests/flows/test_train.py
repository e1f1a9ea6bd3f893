"""The flow that trains: one run in the UI with its learning curve, and a command that goes on where it was killed."""

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("prefect")

SMALL = (
    *("--env", "CartPole-v1", "--exp", "study", "--num-episodes", 1, "--no-render", "--max-steps-per-episode", 20),
    *("--n-envs", 1, "--workers", 1, "--hyperparameters", "n_steps:32", "batch_size:32", "n_epochs:1"),
)


def test_a_training_is_one_run_with_a_learning_curve(
    command_line: Callable[..., Any], data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    monkeypatch.chdir(data_root.parent)
    with get_client(sync_client=True) as client:
        flags = (*SMALL, "--total-timesteps", 128, "--checkpoint-every", 64)
        done = command_line("train", *flags, "--data-root", data_root)
        assert done.code == 0, done.err
        assert f"2 checkpoints in {data_root.name}/models/study/, 3 episodes made, 0 already there" in done.out
        (run,) = [run for run in client.read_flow_runs() if run.parameters.get("data_root") == str(data_root)]
        its_own = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        artifacts = client.read_artifacts(artifact_filter=its_own)
    assert run.state is not None
    assert run.state.message == f"2 checkpoints in {data_root}/models/study/, 3 episodes made, 0 already there"
    assert {"env:CartPole-v1", "exp:study"} <= set(run.tags)
    (curve,) = [found for found in artifacts if found.key == "training-study"]
    assert "Checkpoints written by this run: 64, 128," in str(curve.data)
    picture = re.search(r"base64,([^)]+)\)", str(curve.data))
    assert picture
    assert base64.b64decode(picture[1]).startswith(b"\x89PNG")
    bars = {str(found.description): found.data for found in artifacts if found.type == "progress"}
    assert [share for said, share in bars.items() if "Training" in said] == [100.0]
    assert any(said.startswith("random: 1 of 1 episodes") for said in bars), bars
    assert {"results-study", "overview-study"} <= {found.key for found in artifacts}


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--hyperparameters", "n_stepz:3"), "Did you mean 'n_steps'"),
        (("--algorithm", "sac"), "can't learn in CartPole-v1"),
        (("--hyperparameters-file", "missing.yml"), "missing.yml can't be read"),
    ],
)
def test_a_wrong_request_is_one_line(
    flags: tuple[str, ...], line: str, command_line: Callable[..., Any], data_root: Path
) -> None:
    done = command_line("train", "--env", "CartPole-v1", *flags, "--data-root", data_root)
    assert done.code == 2
    assert line in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not data_root.exists()
