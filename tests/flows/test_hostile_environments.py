"""Environments that end their process, as a command shows them: exit code 1, named, and everything else is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhfblender_core.rollout.seeding import episode_seed

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
