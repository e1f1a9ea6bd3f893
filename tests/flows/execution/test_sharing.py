"""Runs that overlap, as a person sees them: what is made, what is waited for, and what is refused."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.storage import open_data_root
from tests.support.claiming import under_way

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
WAITS = "Waiting for other runs, which have claimed 2 episodes.\n"
KEY = CheckpointKey("study", "random")


def made(result: Any) -> list[str]:
    """Made, already there, failed."""
    assert result.code == 0, result
    return list(result.out.splitlines()[1].split()[1:4])


def test_what_another_run_has_claimed_comes_last_and_is_made_once_that_run_has_released_it(
    generate: Command, data_root: Path
) -> None:
    root, url = open_data_root(str(data_root)), f"sqlite:///{data_root / 'rlhfblender.db'}"
    digest = digest_of(generate, data_root)
    with under_way(root, url, "study", digest) as other:
        other.claim(KEY, [0, 1])
        manifests = data_root / "manifests/study/random"

        def release_in_the_end() -> None:
            while not {"2.json", "3.json"} <= {path.name for path in manifests.glob("*.json")}:
                done.wait(0.05)
            before.update(path.name for path in manifests.glob("*.json"))
            other.release(KEY, [0, 1])

        done, before = threading.Event(), set[str]()
        watcher = threading.Thread(target=release_in_the_end, daemon=True)
        watcher.start()
        result = generate(*FOUR)
        watcher.join(10)
    assert (made(result), result.err) == (["4", "0", "0"], WAITS)
    assert before == {"2.json", "3.json"}


def digest_of(generate: Command, data_root: Path) -> str:
    """Of the request that makes the four; the data root is empty again afterwards."""
    generate(*FOUR)
    manifest = json.loads((data_root / "manifests/study/random/0.json").read_text())
    shutil.rmtree(data_root)
    data_root.mkdir()
    return str(manifest["request_digest"])


def test_a_run_with_other_settings_is_refused_while_one_is_at_work(generate: Command, data_root: Path) -> None:
    root, url = open_data_root(str(data_root)), f"sqlite:///{data_root / 'rlhfblender.db'}"
    with under_way(root, url, "study", "the digest of another request"):
        refused = generate(*FOUR, "--overwrite")
        assert (refused.code, refused.out) == (2, "")
        assert refused.err == (
            "error: Another run is at work on experiment 'study' at random, with other settings, to replace its "
            "episodes, or to delete it. Wait for it, or stop it first.\n"
        )
        assert made(generate(*(*STUDY, "--exp", "another", "--num-episodes", 1))) == ["1", "0", "0"]
    assert made(generate(*FOUR)) == ["4", "0", "0"]


def test_a_run_that_replaces_episodes_is_refused_while_another_makes_or_replaces_the_same(
    generate: Command, data_root: Path
) -> None:
    root, url = open_data_root(str(data_root)), f"sqlite:///{data_root / 'rlhfblender.db'}"
    digest = digest_of(generate, data_root)
    assert made(generate(*FOUR)) == ["4", "0", "0"]
    for theirs in (digest, "replaced by another run"):
        with under_way(root, url, "study", theirs):
            refused = generate(*FOUR, "--overwrite")
            assert (refused.code, "to replace its episodes" in refused.err) == (2, True)
    assert made(generate(*FOUR, "--overwrite")) == ["4", "0", "0"]
