"""Several runs at once on one experiment, on SQLite and on PostgreSQL: no error, no duplicate, verify is clean."""

import subprocess
import sys
from pathlib import Path

import pytest

from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import open_data_root
from tests.support import generating
from tests.support.verifying import problems


def run_side_by_side(count: int, *arguments: str) -> list[str]:
    """What so many of the same run print; all have to end well."""
    command = [sys.executable, generating.__file__, *arguments]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(count)]
    outputs = [run.communicate(timeout=280) for run in runs]
    assert [run.returncode for run in runs] == [0] * count, outputs
    return [output for output, _ in outputs]


def test_many_runs_register_and_four_generate_at_once(new_url: str, tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path / "data"))
    run_side_by_side(8, str(root.local_folder), new_url, "--register-only", "--length", "60")
    with open_registry(new_url) as registry:
        assert [record.name for record in registry.list_experiments()] == ["E"]
        assert [record.env_id for record in registry.list_environments()] == ["Counting-v0"]
    outputs = run_side_by_side(4, str(root.local_folder), new_url, "--episodes", "16", "--length", "60")
    made = [int(output.split()[-1]) for output in outputs]
    assert sum(made) == 16  # all of it shared
    with open_registry(new_url) as registry:
        assert [record.number for record in registry.list_episodes("E")] == list(range(16))
        assert registry.list_runs("E") == []
        assert registry.list_claims("E") == {}
    assert problems(root, new_url) == []


@pytest.mark.soak
def test_sixteen_runs_register_at_once(new_url: str, tmp_path: Path) -> None:
    for number in range(5):
        run_side_by_side(16, str(tmp_path / f"data-{number}"), new_url, "--register-only", "--length", "60")
        with open_registry(new_url) as registry:
            assert len(registry.list_experiments()) == 1
            registry.forget_experiment("E")


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_four_runs_of_200_episodes_make_nothing_twice(new_url: str, tmp_path: Path) -> None:
    root = open_data_root(str(tmp_path / "data"))
    outputs = run_side_by_side(4, str(root.local_folder), new_url, "--episodes", "200", "--length", "20")
    assert sum(int(output.split()[-1]) for output in outputs) == 200
    with open_registry(new_url) as registry:
        assert registry.list_runs("E") == []
        assert registry.list_claims("E") == {}
    assert problems(root, new_url) == []
