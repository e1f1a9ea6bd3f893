"""Environments that end their process, as a command shows them: exit code 1, named, and everything else is made."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.rollout.seeding import episode_seed
from tests.support.soak import sampled

Command = Callable[..., Any]
HOSTILE = ("--env", "Hostile-v0", "--env-gym-entrypoint", "tests.support.environments_for_tests.hostile:Hostile")


@pytest.mark.parametrize(
    ("deed", "runner", "says"),
    [
        ("libc _exit", "process", "Hostile-v0 ended its process (exit code 0)"),
        ("os._exit(0)", "inprocess", "os._exit"),
    ],
)
def test_environment_that_ends_its_process_fails_its_own_episode(
    deed: str, runner: str, says: str, generate: Command, data_root: Path, prefect: None
) -> None:
    kwargs = ("--env-kwargs", f"deed:{deed}", f"of_seed:{episode_seed(0, 1)}")
    arguments = (*HOSTILE, *kwargs, "--random", "--exp", "E", "--num-episodes", "3", "--no-render", "--runner", runner)
    result = generate(*arguments, "--workers", "2" if runner == "process" else "1")
    assert result.code == 1
    assert says in result.out + result.err
    published = data_root / "manifests" / "E" / "random"
    assert sorted(path.name for path in published.iterdir()) == ["0.json", "2.json"]


@pytest.mark.parametrize("deed", ["os._exit(0)", "os.abort", "GeneratorExit", "sys.exit(0)"])
@pytest.mark.parametrize("at", ["reset", "render"])
def test_environment_that_ends_the_command_while_it_is_tried_is_one_line(
    deed: str, at: str, generate: Command, data_root: Path
) -> None:
    result = generate(*HOSTILE, "--env-kwargs", f"deed:{deed}", f"at:{at}", "--random")
    assert (result.code, result.out) == (2, "")
    assert "Hostile-v0 can't" in result.err
    assert result.err.count("\n") == 1
    assert not data_root.exists()


# Of several workers all are taken for lost when the process that they were forked from is gone.
@pytest.mark.parametrize(
    ("deed", "workers"), sampled([("killpg SIGKILL", 2), ("kill of the parent", 1)], ("killpg SIGKILL", 2))
)
def test_environment_that_signals_other_processes_fails_its_own_episode(
    deed: str, workers: int, data_root: Path
) -> None:
    """In a group of its own, as a shell starts a command: else the tests would be ended as well."""
    kwargs = ("--env-kwargs", f"deed:{deed}", f"of_seed:{episode_seed(0, 1)}")
    asked = (
        *HOSTILE,
        *kwargs,
        "--random",
        "--exp",
        "E",
        "--num-episodes",
        "3",
        "--no-render",
        "--workers",
        workers,
    )
    command = [
        sys.executable,
        str(Path(__file__).parents[2] / "flows" / "generate.py"),
        *map(str, asked),
        "--data-root",
        str(data_root),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, start_new_session=True)
    published = {path.name for path in (data_root / "manifests" / "E" / "random").iterdir()}
    assert published >= {"0.json", "2.json"}, done.stderr
    # A worker may outlive its parent for long enough to finish.
    is_told = "episode 1 failed: Hostile-v0 ended its process" in done.stdout + done.stderr
    assert (done.returncode, is_told) == ((0, False) if "1.json" in published else (1, True))
    assert "1.json" not in published or deed == "kill of the parent"
