"""Generating episodes: registers the environment and the experiment, rolls out what is missing and publishes it.

This is the order of things; the steps are :mod:`rlhfblender_core.steps`, or Prefect tasks that do the same.
"""

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlhfblender_core.argument_types import check_arguments
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, locate
from rlhfblender_core.planning.request import GenerationRequest, check_flags, request_from_flags
from rlhfblender_core.planning.work import CheckpointWork, GenerationWork, plan_work
from rlhfblender_core.reading.data_set import DataSet, find_episodes
from rlhfblender_core.registry import CheckpointRecord
from rlhfblender_core.report.summary import CheckpointOutcome, Report
from rlhfblender_core.rollout.pace import Pace
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import PendingShard
from rlhfblender_core.runs.folders import remove_unfinished
from rlhfblender_core.steps import LocalSteps, RunSteps, ShardResult, Steps

#: A run with nothing else to do waits for what live others have claimed. It asks again after so many seconds, by
#: chance: two that wait for the same shouldn't claim it at the same moment.
_ASK_S = (0.5, 1.5)


@check_arguments
def generate(
    request: GenerationRequest | None = None,
    *,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: dict[str, Any] | None = None,
    workers: int | None = None,
    **flags: Any,
) -> DataSet:
    """Generates episodes of an agent in an environment, without Prefect.

    Args:
        request: what to generate; or give its parts by name, which are the flags of ``flows/generate.py``:
            ``generate(env="CartPole-v1", random=True, num_episodes=5)``.
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.
        workers: worker processes; None for the cores that this process may use, 0 for this process itself.
        flags: see ``request``.

    Returns:
        The experiment's episodes, ready to be used; :attr:`DataSet.report` tells what was made, in numbers: some
        episodes may have failed (:attr:`Report.failed`).

    Raises:
        RequestError: with what is wrong and what to do; nothing was registered or written.
        TransientError, OutOfReachError: the storage or the registry is gone.
    """
    check_flags(flags)
    locations = locate(data_root, database_url, storage_options)
    work = plan_work(request or request_from_flags(flags), locations)
    report = carry_out(work, LocalSteps(locations, workers))
    return find_episodes(locations.open_root(), report.experiment, report)


def carry_out(work: GenerationWork, steps: Steps) -> Report:
    """Registers, rolls out and publishes what the work says.

    Args:
        work: a request, resolved and checked.
        steps: how each step is done.

    Raises:
        RequestError: something that concerns all episodes, e.g. a full disk, or a checkpoint that can't act.
        TransientError, OutOfReachError: the storage or the registry is gone.
        RunStoppedError: the run was stopped.
    """
    plan = work.plan
    remove_unfinished(steps.locations.open_root())
    where = steps.locations.open_root().display_url()
    if plan.experiment is None or not work.checkpoints:
        _register(work, steps)
        return Report(plan.experiment.name if plan.experiment else None, where)
    outcome = _Outcome()
    if work.missing:
        with steps.open_run(work.missing, trained=work.is_trained) as run:
            work = replace(work, checkpoints=tuple(_loaded(checkpoint, run) for checkpoint in work.checkpoints))
            with run.claiming(plan.experiment.name, work.digests):
                _register(work, steps)
                with run.rolling_out():
                    _roll_out(work, steps, run, outcome)
    else:
        _register(work, steps)
    labels = [checkpoint.settings.label for checkpoint in work.checkpoints]
    complete = [each for each in work.checkpoints if len(each.missing) == outcome.made[each.settings.label]]
    if complete:
        steps.confirm_complete(complete)
    outcomes = [CheckpointOutcome(label, outcome.made[label], outcome.failures.get(label, {})) for label in labels]
    rows = steps.report(plan.experiment.name, plan.num_episodes, outcomes)
    has_videos = work.checkpoints[0].settings.options.render
    return Report(plan.experiment.name, where, rows, has_videos, plan.notes)


def _loaded(checkpoint: CheckpointWork, run: RunSteps) -> CheckpointWork:
    """The checkpoint's work, with what was found out when it was tried out."""
    return replace(checkpoint, settings=run.load_checkpoint(checkpoint.settings)) if checkpoint.missing else checkpoint


@dataclass
class _Outcome:
    """What a run has made: numbers of episodes, and message by number of those that failed, by checkpoint."""

    made: Counter[str] = field(default_factory=Counter)
    failures: dict[str, dict[int, str]] = field(default_factory=dict)

    def add(self, result: ShardResult) -> None:
        label = result.pending.shard.key.checkpoint
        self.made[label] += len(result.made)
        if result.failures:
            self.failures.setdefault(label, {}).update(result.failures)


def _register(work: GenerationWork, steps: Steps) -> None:
    plan = work.plan
    steps.ensure_env_registered(plan.environment)
    if plan.experiment is not None:
        records = [_checkpoint_record(plan.experiment.name, settings) for settings in plan.settings]
        steps.ensure_experiment_registered(plan.experiment, records, replace=plan.replace)
    unindexed = [row for checkpoint in work.checkpoints for row in checkpoint.existing.unindexed]
    if unindexed:
        steps.index_episodes(unindexed)


def _checkpoint_record(experiment: str, settings: RolloutSettings) -> CheckpointRecord:
    agent = settings.agent
    return CheckpointRecord(
        experiment=experiment, label=agent.label, step=agent.step, sha256=agent.sha256, algorithm=agent.algorithm
    )


def _roll_out(work: GenerationWork, steps: Steps, run: RunSteps, outcome: _Outcome) -> None:
    """Has all missing episodes made; those that other runs have claimed come last, if they still don't exist."""
    pace = Pace(run.concurrency, work.missing)
    left = _make(run, work.shards(pace), outcome, pace)
    if left:
        steps.say(f"Waiting for other runs, which have claimed {sum(len(p.shard.episodes) for p in left)} episodes.")
    while left:
        time.sleep(random.uniform(*_ASK_S))  # noqa: S311 (no secret)
        held = run.held_by_others(left[0].shard.key.experiment)
        free = [pending for pending in left if not _is_held(pending, held)]
        others = [pending for pending in left if pending not in free]
        left = others + (_make(run, free, outcome, pace) if free else [])


def _is_held(pending: PendingShard, held: Mapping[str, frozenset[int]]) -> bool:
    return not held.get(pending.shard.key.checkpoint, frozenset()).isdisjoint(pending.shard.episodes)


def _make(run: RunSteps, shards: Iterable[PendingShard], outcome: _Outcome, pace: Pace) -> list[PendingShard]:
    """Has these made; returns those that have to be asked for again, because other runs had claimed them."""
    left = []
    for result in run.rollout_episodes(shards):
        outcome.add(result)
        pace.record(len(result.made) + len(result.failures), result.seconds)
        if result.held:
            shard = replace(result.pending.shard, episodes=result.held)
            left.append(replace(result.pending, shard=shard))
    return left
