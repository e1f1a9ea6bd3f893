"""Making one shard, from the claim on its episodes to their publication. The same in a library call and in a task."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from rlhfblender_core.dataset.publish import PublishedShard, index_shard, publish_shard
from rlhfblender_core.dataset.published import made_meanwhile
from rlhfblender_core.dataset.staged import StagedShard
from rlhfblender_core.errors import EpisodesFailedError, OutOfReachError, RLHFBlenderError, TransientError, one_line
from rlhfblender_core.locations import Locations
from rlhfblender_core.registry import open_registry
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import PendingShard, Shard, check_agent, roll_out_shard
from rlhfblender_core.runs.claims import claim, release
from rlhfblender_core.runs.folders import Run
from rlhfblender_core.workers.pool import Workers


@dataclass(frozen=True)
class RunWorkers:
    """What a run works with in this process.

    Attributes:
        workers: where shards are rolled out.
        run: with the folder for unfinished files.
    """

    workers: Workers
    run: Run

    def check(self, settings: RolloutSettings) -> None:
        """Has the checkpoint loaded by a worker and act once.

        Raises:
            RequestError: it can't.
        """
        self.workers.run(check_agent, settings)

    def roll_out(self, shard: Shard) -> StagedShard:
        """Has the shard's episodes made by a worker."""
        return self.workers.run(roll_out_shard, shard, self.run.folder)


#: Publishes a shard's staged files and indexes them.
Writer = Callable[[StagedShard], PublishedShard]


def make_shard(
    pending: PendingShard, run_workers: RunWorkers, locations: Locations, run_id: str, write: Writer
) -> PublishedShard:
    """Rolls out the shard's episodes in a worker and has them written; those that other runs have claimed are left out.

    Args:
        pending: the episodes.
        run_workers: of the run, in this process.
        locations: where they go.
        run_id: of the run that claims them.
        write: publishes what was made.

    Raises:
        EpisodesFailedError: some of them failed; the others are published.
        OutOfReachError: they can't be written, after all tries; rolling them out again wouldn't help.
    """
    shard = pending.shard
    with contextlib.ExitStack() as claimed:
        # Claimed just before a worker is free: what waits is there for other runs to take.
        with run_workers.workers.slot():
            claims = claim(locations.database_url, run_id, shard.key, shard.episodes)
            claimed.callback(_release, locations, run_id, shard, claims.free)
            missing = _still_missing(pending, claims.free, locations)
            if not missing:
                return PublishedShard(shard.key, (), {}, claims.held)
            staged = run_workers.roll_out(replace(shard, episodes=missing))
        try:
            published = write(staged)
        except TransientError as error:
            raise OutOfReachError(one_line(error)) from error
    if published.failures:
        raise EpisodesFailedError(published.key.checkpoint, published.failures, published.episodes)
    return replace(published, held=claims.held)


def write_shard(staged: StagedShard, locations: Locations) -> PublishedShard:
    """Publishes the shard's files, their manifests last, and indexes them in the registry."""
    published = publish_shard(locations.open_root(), staged)
    # Not made anew: where it was may be an empty mount point by now.
    with open_registry(locations.database_url, create=False, reached_before=True) as registry:
        index_shard(registry, staged)
    return published


def _still_missing(pending: PendingShard, free: tuple[int, ...], locations: Locations) -> tuple[int, ...]:
    """Episodes that no other run has published meanwhile. What another run has released, it has published before."""
    shard = pending.shard
    candidates = set(free) - pending.existing
    # Manifests are read only where the index knows some: on object storage each costs a request.
    with open_registry(locations.database_url, create=False, reached_before=True) as registry:
        indexed = registry.find_indexed(shard.key.experiment, shard.key.checkpoint, candidates)
    others = made_meanwhile(locations.open_root(), shard.key, shard.settings.digest, indexed)
    return tuple(episode for episode in free if episode not in others)


def _release(locations: Locations, run_id: str, shard: Shard, episodes: tuple[int, ...]) -> None:
    with contextlib.suppress(RLHFBlenderError):  # what was made is made, and a dead run's claims expire
        release(locations.database_url, run_id, shard.key, episodes)
