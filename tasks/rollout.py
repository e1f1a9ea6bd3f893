"""The tasks that make episodes: roll out a shard, write its artifacts.

``rollout-episodes`` calls ``write-artifacts`` where its files lie: they never travel between machines, what waits to be
published stays bounded, and a storage hiccup is retried without rolling out again (``docs/decisions.md``).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext

from rlhfblender_core.dataset.manifests import canonical_digest
from rlhfblender_core.dataset.publish import PublishedShard
from rlhfblender_core.dataset.staged import StagedShard
from rlhfblender_core.locations import Locations
from rlhfblender_core.rollout.make_shard import make_shard, write_shard
from rlhfblender_core.rollout.shards import PendingShard
from rlhfblender_core.wording import counted
from tasks.parameters import quoted
from tasks.retries import RETRY_LONG, RETRY_TRANSIENT
from tasks.run_workers import check_goes_on, run_workers_of


@dataclass(frozen=True)
class ShardTarget:
    """Where a shard's episodes go.

    Attributes:
        locations: data root and registry.
        run_id: the run that makes them.
    """

    locations: Locations
    run_id: str


@task(  # not cached: how shards are cut depends on how fast they are made
    name="rollout-episodes",
    task_run_name="rollout-episodes {pending.shard.name}",
    cache_policy=NO_CACHE,
    **RETRY_LONG,
)
def rollout_episodes(pending: PendingShard, target: ShardTarget) -> PublishedShard:
    """Rolls out the shard's episodes in a worker and has them written; those that other runs have claimed are left out.

    Raises:
        EpisodesFailedError: some of them failed; the others are published.
        OutOfReachError: they can't be written, after all tries; rolling them out again wouldn't help.
    """

    def write(staged: StagedShard) -> PublishedShard:
        return write_artifacts(quoted(staged), quoted(target))

    with run_workers_of(target.run_id, target.locations) as run_workers:
        return make_shard(pending, run_workers, target.locations, target.run_id, write)


@task(  # not cached: the rollout's cache covers it
    name="write-artifacts",
    task_run_name="write-artifacts {staged.name}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def write_artifacts(staged: StagedShard, target: ShardTarget) -> PublishedShard:
    """Publishes the shard's files, their manifests last, and indexes them in the registry."""
    check_goes_on(target.run_id)
    published = write_shard(staged, target.locations, target.run_id)
    steps = sum(episode.manifest.episode_length for episode in staged.episodes)
    made = counted(len(published.episodes), "episode")
    get_run_logger().info("%s: %s, %s published", staged.name, made, counted(steps, "step"))
    return published


@dataclass(frozen=True)
class CompleteCheckpoint:
    """A checkpoint of which all episodes exist that are asked for.

    Attributes:
        experiment: the experiment's name.
        checkpoint: the checkpoint's label.
        request_digest: of what decides the episodes' bytes.
        num_episodes: how many there are.
    """

    experiment: str
    checkpoint: str
    request_digest: str
    num_episodes: int


def complete_cache_key(_context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """What decides the outputs and where they are. That they are still there was seen when the run was planned."""
    return canonical_digest([[asdict(each) for each in parameters["checkpoints"]], parameters["data_root"]])


@task(
    name="confirm-complete",
    task_run_name="confirm-complete {name}",
    cache_key_fn=complete_cache_key,
    persist_result=True,
    **RETRY_TRANSIENT,
)
def confirm_complete(checkpoints: Sequence[CompleteCheckpoint], data_root: str, name: str) -> int:  # noqa: ARG001 (cache key and name)
    """Notes that the checkpoints' episodes exist; Prefect's cache knows it the next time.

    Returns:
        How many episodes that are.
    """
    return sum(each.num_episodes for each in checkpoints)
