"""Many processes on one registry."""

import subprocess
import sys
import threading
from pathlib import Path

from rlhfblender_core.errors import RegistryConflictError
from rlhfblender_core.registry import EnvironmentRecord, ExperimentRecord, open_registry

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
    folder = Path(new_sqlite_url.removeprefix("sqlite:///")).parent
    left = []
    for _ in range(3):  # of two that close at the same moment neither is the last, rarely: SQLite leaves it to the next
        subprocess.run(race, capture_output=True, timeout=120, check=True)
        left.append([file.name for file in folder.iterdir()])
    assert ["rlhfblender.db"] in left


def register(url: str, name: str, start: threading.Barrier, answers: list[str]) -> None:
    with open_registry(url) as registry:
        start.wait()
        try:
            registry.ensure_experiment(ExperimentRecord(name=name, env_id="Race-v0", kind="random", project="Races"))
        except RegistryConflictError as error:
            answers.append(str(error))


def test_of_names_that_differ_in_case_only_one_is_registered_however_many_try_at_once(new_url: str) -> None:
    with open_registry(new_url) as registry:
        registry.ensure_environment(EnvironmentRecord(env_id="Race-v0"))
    for word in ("straße", "study", "race"):
        names = [word, word.upper(), word.capitalize(), word.title() + " 2"]
        start, answers = threading.Barrier(len(names)), list[str]()
        threads = [threading.Thread(target=register, args=(new_url, name, start, answers)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with open_registry(new_url) as registry:
            found = [
                record.name
                for record in registry.list_experiments()
                if record.name.casefold()[:4] == word.casefold()[:4]
            ]
        assert len(found) == 2  # one of each
        assert len(answers) == len(names) - 2
        assert all("differs from it in case only" in line for line in answers)
