"""Submitting a plan's shards as tasks, and collecting what became of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import TaskRunner

from rlhfblender_core.catalogue import Published
from rlhfblender_core.errors import (
    EpisodesFailedError,
    OutOfReachError,
    RegistryUnavailableError,
    RequestError,
    RunStoppedError,
    StorageUnavailableError,
    one_line,
)
from rlhfblender_core.publish import PublishedShard
from rlhfblender_core.rollout_settings import RolloutSettings
from rlhfblender_core.shards import Shard, cut_shards
from tasks.engines import start_fraction
from tasks.rollout import ShardTarget, rollout_episodes
from tasks.settings import Places


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


Failures = dict[str, dict[int, str]]
"""Message by episode number, by checkpoint."""


def run_shards(
    work: Iterable[CheckpointWork],
    places: Places,
    run_id: str,
    runner: TaskRunner[Any],
    at_once: int,
    on_done: Callable[[int], None] = lambda _: None,
) -> Failures:
    """Has all episodes made that are missing.

    Args:
        work: a checkpoint each.
        places: where they go.
        run_id: of the run, see :mod:`tasks.engines`.
        runner: started; takes the tasks.
        at_once: how many shards are worked on at the same time.
        on_done: called with the number of episodes that were to be made when a shard ends.

    Raises:
        RequestError: something that concerns all episodes, e.g. a full disk.
        OutOfReachError, TransientError: the storage or the registry is gone; the other shards aren't tried.
        RunStoppedError: the run was stopped.
    """
    failures: Failures = {}
    shards: dict[PrefectFuture[PublishedShard], tuple[Shard, int]] = {}
    for checkpoint, shard, missing in _in_order(work, places, run_id, at_once):
        existing = tuple(n for n in missing if n in checkpoint.published.manifests)
        target = ShardTarget(places, run_id, missing, existing)
        # A hit in Prefect's cache counts only while the published files are there.
        task = rollout_episodes.with_options(refresh_cache=bool(missing))
        shards[runner.submit(task, {"shard": shard, "target": target})] = (shard, len(missing))
    for future in as_completed(list(shards)):
        shard, episodes = shards[future]
        failed = _failures(future, shard)
        on_done(episodes)
        if failed:
            failures.setdefault(shard.key.checkpoint, {}).update(failed)
    return failures


#: What concerns all shards, not the one that met it first.
_OF_THE_RUN = (RequestError, RunStoppedError, OutOfReachError, StorageUnavailableError, RegistryUnavailableError)

_ShardWork = tuple[CheckpointWork, Shard, tuple[int, ...]]


def _in_order(work: Iterable[CheckpointWork], places: Places, run_id: str, at_once: int) -> list[_ShardWork]:
    """All shards; with other runs at work on the experiment, each run starts elsewhere and they meet late."""
    shards = [(checkpoint, *shard) for checkpoint in work for shard in _shards(checkpoint, at_once)]
    if not any(missing for _, _, missing in shards):
        return shards
    fraction = start_fraction(run_id, places.open_root(), shards[0][1].key.experiment)
    first = int(fraction * len(shards))
    return shards[first:] + shards[:first]


def _shards(work: CheckpointWork, at_once: int) -> Iterable[tuple[Shard, tuple[int, ...]]]:
    missing = set(work.missing)
    for episodes in cut_shards(range(work.num_episodes), at_once):
        shard = Shard(work.published.key, work.settings, episodes)
        yield shard, tuple(episode for episode in episodes if episode in missing)


def _failures(future: PrefectFuture[PublishedShard], shard: Shard) -> Mapping[int, str]:
    result: object = future.result(raise_on_failure=False)
    if isinstance(result, EpisodesFailedError):
        return result.failures
    if isinstance(result, _OF_THE_RUN):
        raise result
    if isinstance(result, BaseException):
        get_run_logger().error("%s failed: %s", shard.name, one_line(result))
        return dict.fromkeys(shard.episodes, f"episodes {shard.name} failed: {one_line(result)}")
    return {}
