"""Many processes on one registry."""

import subprocess
import sys
from pathlib import Path

from rlhfblender_core.registry import open_registry

RACE = Path(__file__).with_name("race.py")
PROCESSES = 16


def test_sixteen_processes_that_open_a_new_registry_and_register_the_same_all_succeed(new_url: str) -> None:
    race = [sys.executable, str(RACE), new_url, str(PROCESSES)]
    answers = subprocess.run(race, capture_output=True, text=True, timeout=120, check=False)
    assert answers.stderr == ""
    assert answers.stdout.splitlines() == ["ok"] * PROCESSES
    with open_registry(new_url) as registry:
        assert [environment.description for environment in registry.list_environments()] == ["races"]
        assert [project.name for project in registry.list_projects()] == ["Races"]
        assert [experiment.name for experiment in registry.list_experiments()] == ["race"]
        assert [checkpoint.label for checkpoint in registry.list_checkpoints("race")] == ["final", "random"]
        assert [episode.number for episode in registry.list_episodes("race", "final")] == list(range(20))


def test_sqlite_leaves_no_journal_files_behind(new_sqlite_url: str) -> None:
    race = [sys.executable, str(RACE), new_sqlite_url, "4"]
    subprocess.run(race, capture_output=True, timeout=120, check=True)
    folder = Path(new_sqlite_url.removeprefix("sqlite:///")).parent
    assert [file.name for file in folder.iterdir()] == ["rlhfblender.db"]
