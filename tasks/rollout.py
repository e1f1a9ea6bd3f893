"""The tasks that make episodes: roll out a shard, write its artifacts.

``rollout-episodes`` calls ``write-artifacts`` where its files lie: they never travel between machines, what waits to be
published stays bounded, and a storage hiccup is retried without rolling out again (``docs/decisions.md``).
"""

import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from rlhfblender_core.dataset.manifests import canonical_digest
from rlhfblender_core.dataset.publish import PublishedShard, publish_and_index
from rlhfblender_core.dataset.published import made_meanwhile
from rlhfblender_core.errors import EpisodesFailedError, OutOfReachError, TransientError, one_line
from rlhfblender_core.registry import open_registry
from rlhfblender_core.rollout.shards import Shard, StagedShard
from rlhfblender_core.runs.sharing import Making, taken_in_hand
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.wording import counted
from tasks.config import Locations
from tasks.engines import Engine, check_goes_on, engine_of
from tasks.parameters import quoted
from tasks.retries import RETRY_LONG, RETRY_TRANSIENT


@dataclass(frozen=True)
class ShardTarget:
    """Where a shard's episodes go.

    Attributes:
        locations: data root and registry.
        run_id: the run that makes them.
        missing: the shard's episodes that have to be made.
        existing: those among them that are published from the same request, and are replaced.
        leave: whether those that other runs have in hand are left to them.
    """

    locations: Locations
    run_id: str
    missing: tuple[int, ...]
    existing: Collection[int] = ()
    leave: bool = False


def shard_cache_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """What decides the outputs and where they are. Whether they are still there decides ``refresh_cache``."""
    shard: Shard = parameters["shard"]
    target: ShardTarget = parameters["target"]
    identity = [shard.settings.digest, shard.key.experiment, shard.key.checkpoint, list(shard.episodes)]
    return canonical_digest([*identity, target.locations.data_root])


@task(
    name="rollout-episodes",
    task_run_name="rollout-episodes {shard.name}",
    cache_key_fn=shard_cache_key,
    persist_result=True,
    **RETRY_LONG,
)
def rollout_episodes(shard: Shard, target: ShardTarget) -> PublishedShard:
    """Rolls out the shard's missing episodes in a worker and has them written; those of other runs are left out.

    Raises:
        EpisodesFailedError: some of them failed; the others are published.
        OutOfReachError: they can't be written, after all tries; rolling them out again wouldn't help.
    """
    check_goes_on(target.run_id)
    root = target.locations.open_root()
    if not _still_missing(shard, target, root):
        return PublishedShard(shard.key, (), {})
    making = Making(shard.key.experiment, {shard.key.checkpoint: shard.settings.digest})
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(engine_of(target.run_id, root, making))
        with engine.workers.slot():
            begun = engine.take_begun(shard)
            if begun:
                stack.enter_context(begun.hand)
                staged = begun.work.result()
            else:
                missing = stack.enter_context(_in_hand(shard, target, root, engine))
                if not missing:
                    return PublishedShard(shard.key, (), {})
                staged = engine.roll_out(shard, missing)
        try:
            published = write_artifacts(quoted(staged), quoted(target))
        except TransientError as error:
            raise OutOfReachError(one_line(error)) from error
    if published.failures:
        raise EpisodesFailedError(published.key.checkpoint, published.failures, published.episodes)
    return published


def begin_episodes(shard: Shard, target: ShardTarget) -> None:
    """Has the shard's missing episodes made before :func:`rollout_episodes` is called with it, in the same process."""
    root = target.locations.open_root()
    with engine_of(target.run_id, root) as engine, contextlib.ExitStack() as hand:
        missing = hand.enter_context(_in_hand(shard, target, root, engine))
        if missing:
            engine.begin(shard, missing, hand.pop_all())


@contextlib.contextmanager
def _in_hand(shard: Shard, target: ShardTarget, root: DataRoot, engine: Engine) -> Iterator[tuple[int, ...]]:
    """Episodes to make now; other runs know of them while the context lasts."""
    with taken_in_hand(root, engine.run, shard.key, target.missing, leave=target.leave) as mine:
        # In this order: what another run doesn't have in hand any more, it has published before.
        missing = _still_missing(shard, target, root) if mine else ()
        yield tuple(episode for episode in missing if episode in mine)


def _still_missing(shard: Shard, target: ShardTarget, root: DataRoot) -> tuple[int, ...]:
    """Episodes that no other run has published meanwhile."""
    others = made_meanwhile(root, shard.key, shard.settings.digest, set(target.missing) - set(target.existing))
    return tuple(episode for episode in target.missing if episode not in others)


@task(  # not cached: the rollout's cache covers it
    name="write-artifacts",
    task_run_name="write-artifacts {staged.name}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def write_artifacts(staged: StagedShard, target: ShardTarget) -> PublishedShard:
    """Publishes the shard's files, their manifests last, and indexes them in the registry."""
    check_goes_on(target.run_id)
    # Not made anew: where it was may be an empty mount point by now.
    with open_registry(target.locations.database_url, create=False, reached_before=True) as registry:
        published = publish_and_index(target.locations.open_root(), registry, staged)
    steps = sum(episode.manifest.episode_length for episode in staged.episodes)
    made = counted(len(published.episodes), "episode")
    get_run_logger().info("%s: %s, %s published", staged.name, made, counted(steps, "step"))
    return published
