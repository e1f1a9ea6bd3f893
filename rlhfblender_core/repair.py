"""Repairing what :mod:`rlhfblender_core.verify` finds.

What intact files determine is made from them, other broken episodes are made again, the index is rebuilt.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhfblender_core.argument_types import check_arguments
from rlhfblender_core.dataset.layout import EpisodeKey
from rlhfblender_core.dataset.listings import check_root
from rlhfblender_core.errors import RequestError, one_line
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.registry import (
    EpisodeRecord,
    open_registry,
)
from rlhfblender_core.rollout.pace import Pace, cut_shards
from rlhfblender_core.rollout.shards import PendingShard, Shard
from rlhfblender_core.runs.folders import remove_unfinished
from rlhfblender_core.step_runner import LocalRunner, StepRunner
from rlhfblender_core.steps import LocalSteps, Steps
from rlhfblender_core.verification.checks import Findings, Problem, Remedy, index_problems
from rlhfblender_core.verification.derivations import derive_broken_files
from rlhfblender_core.verification.left_over import remove_left_over
from rlhfblender_core.verification.remakes import Refusal, Remake, Sources, plan_remakes, rebuild_index, refusal
from rlhfblender_core.verify import (
    Verification,
    survey,
    verification,
)


@check_arguments
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
    """Checks what is published and mends it: broken files, what dead runs left, the registry's index.

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
    problems = first.problems
    left_over = [problem for problem in problems if problem.remedy is Remedy.REMOVE]
    broken = [problem for problem in problems if problem.remedy is Remedy.REMAKE]
    if left_over:
        runner.do(remove_left_over, left_over, locations)
    if broken:
        notes = _mend(broken, first, runner, steps, trust_checkpoint=trust_checkpoint)
    if left_over or broken:
        now = survey(exp, runner, locations)
    rows = index_problems(now.problems)
    if rows:
        try:
            runner.do(rebuild_rows, rows, now.records, locations)
        except RequestError as error:
            notes.append(f"The registry's index can't be rebuilt: {one_line(error)}")
        left = tuple(problem for problem in now.problems if problem.remedy is not Remedy.INDEX)
        left += tuple(index_problems(survey(exp, runner, locations, quick=True).problems))
        now = replace(now, problems=left)
    return verification(first, now, notes)


def _mend(
    broken: Sequence[Problem], found: Findings, runner: StepRunner, steps: Steps, *, trust_checkpoint: bool
) -> list[str]:
    """Derives or makes again what is broken; returns lines about what can't be mended.

    Args:
        broken: the problems.
        found: all that was found.
        runner: how each step is run.
        steps: how episodes are made.
        trust_checkpoint: whether checkpoints may run code of their own.
    """
    locations = steps.locations
    derived = runner.do(derive_broken_files, broken, locations, replace_thumbnails=False)
    left = [problem for problem in broken if problem not in derived]
    if not left:
        return []
    findings = replace(found, problems=tuple(left))
    remakes, refusals = runner.do(plan_repair, findings, locations, trust_checkpoint=trust_checkpoint)
    refusals += _remake(remakes, steps)
    refused = frozenset[EpisodeKey]().union(*(each.keys for each in refusals))
    left = [problem for problem in left if problem.key in refused]
    if left:
        derived = runner.do(derive_broken_files, left, locations, replace_thumbnails=True)
        refused = frozenset(problem.key for problem in left if problem.key and problem not in derived)
    return [each.why for each in refusals if each.keys & refused]


def _remake(remakes: Sequence[Remake], steps: Steps) -> list[Refusal]:
    """Makes the episodes again, by the same steps as generate; returns those that failed."""
    if not remakes:
        return []
    missing = sum(len(remake.episodes) for remake in remakes)
    trained = any(remake.settings.agent.is_trained for remake in remakes)
    refusals: list[Refusal] = []
    with steps.open_run(missing, trained=trained) as run, run.rolling_out():
        pace = Pace(run.concurrency, missing)
        for experiment, own in itertools.groupby(remakes, lambda remake: remake.key.experiment):
            of_experiment = []
            for remake in own:
                try:
                    of_experiment.append(replace(remake, settings=run.load_checkpoint(remake.settings)))
                except RequestError as error:
                    refusals.append(refusal(remake.key, remake.episodes, error))
            digests = {remake.key.checkpoint: remake.settings.digest for remake in of_experiment}
            shards = (part for remake in of_experiment for part in _shards(remake, pace))
            with run.claiming(experiment, digests):
                for result in run.rollout_episodes(shards):
                    pace.record(len(result.made) + len(result.failures), result.seconds)
                    key = result.pending.shard.key
                    refusals += (Refusal(key, (number,), why) for number, why in result.failures.items())
    return refusals


def _shards(remake: Remake, pace: Pace) -> Iterator[PendingShard]:
    for episodes in cut_shards(remake.episodes, pace):
        yield PendingShard(Shard(remake.key, remake.settings, episodes), frozenset(episodes), frozenset(episodes))


def plan_repair(
    findings: Findings, locations: Locations, *, trust_checkpoint: bool
) -> tuple[list[Remake], list[Refusal]]:
    """Which episodes are made again, with which settings; and those that can't be."""
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
