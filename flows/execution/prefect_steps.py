"""Submitting a plan's shards as tasks, and collecting what became of them."""

import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from prefect import get_run_logger
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner

from flows.cli.progress import current_display
from rlhfblender_core.dataset.publish import PublishedShard
from rlhfblender_core.dataset.published import Published, made_meanwhile
from rlhfblender_core.errors import (
    EpisodesFailedError,
    OutOfReachError,
    RegistryUnavailableError,
    RequestError,
    RunStoppedError,
    StorageUnavailableError,
    TransientError,
    one_line,
)
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import Shard, cut_shards
from rlhfblender_core.runs.sharing import in_hand_of_others
from tasks.config import Locations
from tasks.engines import start_fraction
from tasks.rollout import ShardTarget, begin_episodes, rollout_episodes


@dataclass(frozen=True)
class CheckpointWork:
    """What is to be done for one checkpoint.

    Attributes:
        settings: how its episodes are rolled out.
        published: what is there.
        num_episodes: how many there shall be.
        replace: whether those that are there are made anew.
    """

    settings: RolloutSettings
    published: Published
    num_episodes: int
    replace: bool

    @property
    def missing(self) -> tuple[int, ...]:
        """Episodes to make."""
        wanted = range(self.num_episodes)
        return tuple(wanted) if self.replace else self.published.missing(wanted)


@dataclass
class Outcome:
    """What a run has made.

    Attributes:
        made: how many episodes it has published, by checkpoint.
        failures: message by number of those that failed, by checkpoint.
    """

    made: Counter[str] = field(default_factory=Counter)
    failures: dict[str, dict[int, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    """What all shards of a run share: where they go, who takes them, and what is told of them."""

    locations: Locations
    run_id: str
    runner: TaskRunner[Any]
    on_done: Callable[[int, int], None]
    outcome: Outcome


@dataclass(frozen=True)
class _Part:
    """A shard, which of its episodes have to be made, and which of those are published from the same request."""

    shard: Shard
    missing: tuple[int, ...]
    existing: frozenset[int]


def run_shards(
    work: Iterable[CheckpointWork],
    locations: Locations,
    run_id: str,
    runner: TaskRunner[Any],
    concurrency: int,
    on_done: Callable[[int, int], None] = lambda made, others: None,  # noqa: ARG005
) -> Outcome:
    """Has all episodes made that are missing; those that other runs have in hand come last, if they still don't exist.

    Args:
        work: a checkpoint each.
        locations: where they go.
        run_id: of the run, see :mod:`tasks.engines`.
        runner: started; takes the tasks.
        concurrency: how many shards are worked on at the same time.
        on_done: called when a shard ends, with the number of episodes that this run has tried, and others have made.

    Raises:
        RequestError: something that concerns all episodes, e.g. a full disk.
        OutOfReachError, TransientError: the storage or the registry is gone; the other shards aren't tried.
        RunStoppedError: the run was stopped.
    """
    run = _Run(locations, run_id, runner, on_done, Outcome())
    left = _work_off(run, _in_order(work, locations, run_id, concurrency), leave=True)
    deadline = time.monotonic() + _PATIENCE_S
    if left:
        _say_that_it_waits(left)
    while left:
        is_late = time.monotonic() > deadline
        free = left if is_late else _wait_for_some(left, locations, deadline)
        others = [part for part in left if part not in free]
        left = others + _work_off(run, free, leave=not is_late)
    return run.outcome


def begin_shards(
    work: Iterable[CheckpointWork], locations: Locations, run_id: str, concurrency: int, count: int
) -> None:
    """Has the first shards made before :func:`run_shards` submits them.

    Args:
        work: see :func:`run_shards`, as the others.
        locations: where they go.
        run_id: of the run, whose workers are open.
        concurrency: how many shards are worked on at the same time.
        count: how many shards.
    """
    parts = [part for part in _in_order(work, locations, run_id, concurrency) if part.missing]
    for part in parts[:count]:
        begin_episodes(part.shard, ShardTarget(locations, run_id, part.missing, part.existing, leave=True))


def _work_off(run: _Run, parts: Iterable[_Part], *, leave: bool) -> list[_Part]:
    """Has these made; returns what other runs have in hand."""
    submitted = {}
    for part in parts:
        target = ShardTarget(run.locations, run.run_id, part.missing, part.existing, leave)
        # A hit in Prefect's cache counts only while the published files are there.
        task = rollout_episodes.with_options(refresh_cache=bool(part.missing))
        submitted[run.runner.submit(task, {"shard": part.shard, "target": target})] = part
    return [left for future in as_completed(list(submitted)) if (left := _collect(run, future, submitted[future]))]


def _collect(run: _Run, future: PrefectFuture[PublishedShard], part: _Part) -> _Part | None:
    """Notes what became of a shard; returns what other runs have in hand of it."""
    made, failed = _result(future, part)
    if not part.missing:  # what is in Prefect's cache tells of another run
        return None
    label = part.shard.key.checkpoint
    run.outcome.made[label] += len(made)
    if failed:
        run.outcome.failures.setdefault(label, {}).update(failed)
    untouched = [n for n in part.missing if n not in made and n not in failed]
    others = _made_by_others(run, part.shard, [n for n in untouched if n not in part.existing])
    run.on_done(len(made) + len(failed), len(others))
    left = tuple(n for n in untouched if n not in others)
    return replace(part, missing=left) if left else None


def _made_by_others(run: _Run, shard: Shard, episodes: Collection[int]) -> Collection[int]:
    try:
        return made_meanwhile(run.locations.open_root(), shard.key, shard.settings.digest, episodes)
    except TransientError:  # asked again later, by a task that tries several times
        return ()


#: What concerns all shards, not the one that met it first.
_OF_THE_RUN = (RequestError, RunStoppedError, OutOfReachError, StorageUnavailableError, RegistryUnavailableError)

#: So long a run with nothing else to do waits for what others have in hand: longer than a shard usually takes.
_PATIENCE_S = 600.0
#: Looks for it after so many seconds, by chance: two that wait for the same shouldn't take it at the same moment.
_LOOK_S = (0.5, 1.5)


def _wait_for_some(left: Sequence[_Part], locations: Locations, deadline: float) -> list[_Part]:
    """Those that no other run has in hand any more, as soon as there are some."""
    while time.monotonic() < deadline:
        time.sleep(random.uniform(*_LOOK_S))  # noqa: S311 (no secret)
        free = [part for part in left if not _is_in_hand(part, locations)]
        if free:
            return free
    return []


def _is_in_hand(part: _Part, locations: Locations) -> bool:
    try:
        return bool(in_hand_of_others(locations.open_root(), part.shard.key, part.missing))
    except TransientError:  # the tasks try again, and give up in time
        return False


def _say_that_it_waits(left: Sequence[_Part]) -> None:
    line = f"Waiting for other runs: episodes in their hands: {sum(len(part.missing) for part in left)}."
    get_run_logger().info("%s", line)
    current_display.get().say(line)


def _in_order(work: Iterable[CheckpointWork], locations: Locations, run_id: str, concurrency: int) -> list[_Part]:
    """All shards; with other runs at work on the experiment, each run starts elsewhere and they meet late."""
    parts = [part for checkpoint in work for part in _parts(checkpoint, concurrency)]
    if not any(part.missing for part in parts):
        return parts
    fraction = start_fraction(run_id, locations.open_root(), parts[0].shard.key.experiment)
    first = int(fraction * len(parts))
    return parts[first:] + parts[:first]


def _parts(work: CheckpointWork, concurrency: int) -> Iterable[_Part]:
    missing = set(work.missing)
    manifests = work.published.manifests
    existing = frozenset(n for n in manifests if manifests[n].request_digest == work.settings.digest)
    for episodes in cut_shards(range(work.num_episodes), concurrency):
        shard = Shard(work.published.key, work.settings, episodes)
        missing_here = tuple(episode for episode in episodes if episode in missing)
        yield _Part(shard, missing_here, existing.intersection(missing_here))


def _result(future: PrefectFuture[PublishedShard], part: _Part) -> tuple[Collection[int], Mapping[int, str]]:
    """Numbers of the episodes that the shard's task has published, and message by number of those that failed."""
    result: object = future.result(raise_on_failure=False)
    if isinstance(result, EpisodesFailedError):
        return result.published, result.failures
    if isinstance(result, _OF_THE_RUN):
        raise result
    if isinstance(result, BaseException):
        get_run_logger().error("%s failed: %s", part.shard.name, one_line(result))
        return (), dict.fromkeys(part.missing, f"episodes {part.shard.name} failed: {one_line(result)}")
    return cast("PublishedShard", result).episodes, {}
