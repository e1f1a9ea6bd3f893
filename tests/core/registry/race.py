"""Run by test_concurrency.py: many processes open one new database and register the same things at one moment.

Usage: python race.py URL PROCESSES. Prints one line per process, ``ok`` or the error. A script of its own, so that it
can fork before any thread exists.
"""

import multiprocessing
import sys
from multiprocessing.synchronize import Barrier

from rlhfblender_core.registry import (
    CheckpointRecord,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentRecord,
    open_registry,
)


def register_everything(url: str, number: int) -> None:
    with open_registry(url) as registry:
        registry.ensure_environment(EnvironmentRecord(env_id="Race-v0", description="races"))
        registry.ensure_environment(EnvironmentRecord(env_id="Race-v0", display_name=f"Race {number}"))
        registry.ensure_experiment(ExperimentRecord(name="race", env_id="Race-v0", kind="random", project="Races"))
    for label in ("random", "final"):  # opened again: what closes while others open is a race of its own
        with open_registry(url) as registry:
            registry.ensure_checkpoint(CheckpointRecord(experiment="race", label=label))
            registry.record_episodes([episode(label, n) for n in range(20)])


def episode(label: str, number: int) -> EpisodeRecord:
    return EpisodeRecord(
        experiment="race",
        checkpoint=label,
        number=number,
        seed=number,
        episode_return=1.0,
        episode_length=1,
        terminated=True,
        truncated=False,
        request_digest="digest",
    )


def run(url: str, number: int, start: Barrier, answers: "multiprocessing.SimpleQueue[str]") -> None:
    start.wait()
    try:
        register_everything(url, number)
    except Exception as error:  # noqa: BLE001 (the test reads it)
        answers.put(f"{type(error).__name__}: {error}")
    else:
        answers.put("ok")


if __name__ == "__main__":
    url, processes = sys.argv[1], int(sys.argv[2])
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(processes), context.SimpleQueue()
    workers = [context.Process(target=run, args=(url, number, start, answers)) for number in range(processes)]
    for worker in workers:
        worker.start()
    for _ in workers:
        print(answers.get(), flush=True)
    for worker in workers:
        worker.join()
