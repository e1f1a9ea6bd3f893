"""Making one shard, from the claim on its episodes to their publication. The same in a library call and in a task."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.publish import PublishedShard, episode_record, publish_and_index
from rlhfblender_core.dataset.published import made_meanwhile
from rlhfblender_core.dataset.staged import StagedShard
from rlhfblender_core.errors import EpisodesFailedError, OutOfReachError, RLHFBlenderError, TransientError, one_line
from rlhfblender_core.locations import Locations
from rlhfblender_core.registry import Claimed, open_registry
from rlhfblender_core.rollout.check_in_workers import check_in_workers
from rlhfblender_core.rollout.lost_workers import roll_out_in_workers
from rlhfblender_core.rollout.settings import RolloutSettings
from rlhfblender_core.rollout.shards import PendingShard, Shard
from rlhfblender_core.runs.claims import RunClaims
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

    def check(self, settings: RolloutSettings) -> RolloutSettings:
        """Has the checkpoint loaded by a worker, tried out and act once.

        Returns:
            The settings, and whether their environment is reproducible.

        Raises:
            RequestError: it can't.
        """
        return check_in_workers(self.workers, settings)

    def roll_out(self, shard: Shard) -> StagedShard:
        """Has the shard's episodes made by a worker."""
        return roll_out_in_workers(self.workers, shard, self.run.folder)


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
    shard, claims = pending.shard, RunClaims(locations.database_url, run_id)
    # Claimed just before a worker is free: what waits is there for other runs to take.
    with run_workers.workers.slot():
        claimed = claims.claim(shard.key, shard.episodes)
        with _released_unless_made(claims, shard.key, claimed.free):
            missing = _still_missing(pending, claimed, locations)
            staged = run_workers.roll_out(replace(shard, episodes=missing)) if missing else None
    held = tuple(sorted(claimed.held))
    if staged is None:
        _release(claims, shard.key, claimed.free)
        return PublishedShard(shard.key, (), {}, held)
    staged = replace(
        staged,
        replace=shard.replace,
        ours=claimed.taken_over,
        present=pending.present | claimed.taken_over | claimed.indexed,
        older_digests=shard.settings.older_digests,
    )
    try:
        # What it had moved into place when it failed is known as ours by the claims, which stay.
        published = write(staged)
    except TransientError as error:
        raise OutOfReachError(one_line(error)) from error
    _release(claims, shard.key, set(claimed.free).difference(published.episodes))
    if published.failures:
        raise EpisodesFailedError(published.key.checkpoint, published.failures, published.episodes, staged.traces)
    return replace(published, held=held)


def write_shard(staged: StagedShard, locations: Locations, run_id: str) -> PublishedShard:
    """Publishes the shard's files, their manifests last, indexes them and releases the run's claims on them."""
    # Not made anew: where it was may be an empty mount point by now.
    with open_registry(locations.database_url, create=False, reached_before=True) as registry:
        return publish_and_index(locations.open_root(), registry, staged, run_id)


def _still_missing(pending: PendingShard, claimed: Claimed, locations: Locations) -> tuple[int, ...]:
    """Episodes that no other run has published meanwhile. What another run has released, it has published before."""
    shard = pending.shard
    # Manifests are read only where the index knows some: on object storage each costs a request.
    candidates = claimed.indexed - pending.existing
    others = made_meanwhile(locations.open_root(), shard.key, shard.settings.digest, candidates)
    if others:  # a run that was killed in between has published them, and their rows tell of what was there before
        with open_registry(locations.database_url, create=False, reached_before=True) as registry:
            registry.record_episodes([episode_record(manifest) for manifest in others.values()])
    return tuple(episode for episode in claimed.free if episode not in others)


@contextlib.contextmanager
def _released_unless_made(claims: RunClaims, key: CheckpointKey, episodes: Collection[int]) -> Iterator[None]:
    """Releases the claims where nothing came of them: no file of theirs was moved into place."""
    try:
        yield
    except BaseException:  # an interrupt, too
        _release(claims, key, episodes)
        raise


def _release(claims: RunClaims, key: CheckpointKey, episodes: Collection[int]) -> None:
    if episodes:
        with contextlib.suppress(RLHFBlenderError):  # what was made is made, and a dead run's claims are free
            claims.release(key, episodes)
