"""Repairing what :mod:`rlhfblender_core.verify` finds: broken episodes are made again, the index is rebuilt."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhfblender_core.dataset.listings import check_root
from rlhfblender_core.errors import RequestError, one_line
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.registry import (
    EpisodeRecord,
    open_registry,
)
from rlhfblender_core.rollout.shards import PendingShard, Shard, cut_shards
from rlhfblender_core.runs.folders import remove_unfinished
from rlhfblender_core.step_runner import LocalRunner, StepRunner
from rlhfblender_core.steps import LocalSteps, Steps
from rlhfblender_core.verification.checks import Findings, Problem, Remedy, index_problems
from rlhfblender_core.verification.left_over import remove_left_over
from rlhfblender_core.verification.remakes import Remake, Sources, plan_remakes, rebuild_index
from rlhfblender_core.verify import (
    Verification,
    check_registry,
    survey,
    verification,
)


def repair(
    *,
    exp: str | None = None,
    trust_checkpoint: bool = False,
    workers: int | None = None,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Verifies as :func:`rlhfblender_core.verify.verify` does, and repairs what can be repaired, without Prefect.

    Args:
        exp: experiment; None for all.
        trust_checkpoint: whether a checkpoint that you made yourself may run its own code.
        workers: worker processes; None for the cores that this process may use, 0 for this process itself.
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.

    Raises:
        RequestError: there is no such data root or experiment.
        TransientError: the storage or the registry is gone.
    """
    steps = LocalSteps(locate(data_root, database_url, storage_options), workers)
    return repair_all(exp, LocalRunner(), steps, trust_checkpoint=trust_checkpoint)


def repair_all(exp: str | None, runner: StepRunner, steps: Steps, *, trust_checkpoint: bool) -> Verification:
    """Checks what is published and mends it: broken episodes are made again, the registry's index is rebuilt.

    Args:
        exp: experiment; None for all.
        runner: how each step is run.
        steps: how episodes are made.
        trust_checkpoint: whether checkpoints may run code of their own.
    """
    locations = steps.locations
    root = locations.open_root()
    check_root(root)
    remove_unfinished(root)
    first = now = survey(exp, runner, locations)
    notes: list[str] = []
    problems = first.findings.problems
    left_over = [problem for problem in problems if problem.remedy is Remedy.REMOVE]
    is_broken = any(problem.remedy is Remedy.REMAKE for problem in problems)
    if left_over:
        runner.do(remove_left_over, left_over, locations)
    if is_broken:
        remakes, notes = runner.do(plan_repair, first.findings, locations, trust_checkpoint=trust_checkpoint)
        notes += _remake(remakes, steps)
    if left_over or is_broken:
        now = survey(exp, runner, locations)
    rows = index_problems(now.findings.problems)
    if rows:
        try:
            runner.do(rebuild_rows, rows, now.findings.records, locations)
        except RequestError as error:
            notes.append(f"The registry's index can't be rebuilt: {one_line(error)}")
        left = tuple(problem for problem in now.findings.problems if problem.remedy is not Remedy.INDEX)
        left += runner.do(check_registry, now.listings, now.findings.records, locations)
        now = replace(now, findings=replace(now.findings, problems=left))
    return verification(first.findings, now.findings, notes)


def _remake(remakes: Sequence[Remake], steps: Steps) -> list[str]:
    """Makes the episodes again, by the same steps as generate; returns lines about those that failed."""
    if not remakes:
        return []
    missing = sum(len(remake.episodes) for remake in remakes)
    trained = any(remake.settings.agent.is_trained for remake in remakes)
    notes: list[str] = []
    with steps.open_run(missing, trained=trained) as run, run.rolling_out():
        for experiment, own in itertools.groupby(remakes, lambda remake: remake.key.experiment):
            of_experiment = [replace(remake, settings=run.load_checkpoint(remake.settings)) for remake in own]
            digests = {remake.key.checkpoint: remake.settings.digest for remake in of_experiment}
            shards = (part for remake in of_experiment for part in _shards(remake, run.concurrency))
            with run.claiming(experiment, digests):
                for result in run.rollout_episodes(shards):
                    notes += result.failures.values()
    return notes


def _shards(remake: Remake, concurrency: int) -> Iterator[PendingShard]:
    for episodes in cut_shards(remake.episodes, concurrency):
        yield PendingShard(Shard(remake.key, remake.settings, episodes), frozenset(episodes), frozenset(episodes))


def plan_repair(findings: Findings, locations: Locations, *, trust_checkpoint: bool) -> tuple[list[Remake], list[str]]:
    """Which episodes are made again, with which settings; and lines about those that can't be."""
    with open_registry(locations.database_url) as registry:
        options = dict(locations.storage_options)
        sources = Sources(
            locations.open_root(), registry, locations.cache, options, trust_checkpoint, locations.trust()
        )
        return plan_remakes(findings, sources)


def rebuild_rows(problems: Sequence[Problem], records: Sequence[EpisodeRecord], locations: Locations) -> None:
    """Brings the registry's rows to what the manifests say."""
    with open_registry(locations.database_url) as registry:
        rebuild_index(locations.open_root(), registry, problems, records, locations.trust())
