"""Runs that overlap, as a person sees them: what is made, what is waited for, and what is refused."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.execution import prefect_steps as shard_runs
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.storage import open_data_root

pytestmark = pytest.mark.usefixtures("prefect")

Command = Callable[..., Any]
STUDY = (
    "--env",
    "Mine-v0",
    "--env-gym-entrypoint",
    "tests.support.environments_for_tests.counting:Counting",
    "--random",
)
FOUR = (*STUDY, "--exp", "study", "--num-episodes", 4, "--runner", "inprocess")
WAITS = "Waiting for other runs: episodes in their hands: 2.\n"


def made(result: Any) -> list[str]:
    """Made, already there, failed."""
    assert result.code == 0, result
    return list(result.out.splitlines()[1].split()[1:4])


@pytest.mark.parametrize("lets_go", [True, False])
def test_what_another_run_has_in_hand_comes_last(
    *, lets_go: bool, generate: Command, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is made once that run has let go of it, or has had it for too long."""
    monkeypatch.setattr(shard_runs, "_PATIENCE_S", 60.0 if lets_go else 1.0)
    with open_run(open_data_root(str(data_root)), "study") as other:
        other.notice.take("random", [0, 1])
        manifests = data_root / "manifests/study/random"

        def let_go_in_the_end() -> None:
            while not {"2.json", "3.json"} <= {path.name for path in manifests.glob("*.json")}:
                done.wait(0.05)
            before.update(path.name for path in manifests.glob("*.json"))
            if lets_go:
                other.notice.drop("random", [0, 1])

        done, before = threading.Event(), set[str]()
        watcher = threading.Thread(target=let_go_in_the_end, daemon=True)
        watcher.start()
        result = generate(*FOUR)
        watcher.join(10)
    assert (made(result), result.err) == (["4", "0", "0"], WAITS)
    assert before == {"2.json", "3.json"}


def test_a_run_with_other_settings_is_refused_while_one_is_at_work(generate: Command, data_root: Path) -> None:
    with open_run(open_data_root(str(data_root)), "study") as other:
        other.notice.make({"random": "the digest of another request"})
        refused = generate(*FOUR, "--overwrite")
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            "error: Another run is at work on experiment 'study' at random, with other settings or to delete it. "
            "Wait for it, or stop it first.\n"
        )
        assert made(generate(*(*STUDY, "--exp", "another", "--num-episodes", 1))) == ["1", "0", "0"]
    assert made(generate(*FOUR)) == ["4", "0", "0"]
