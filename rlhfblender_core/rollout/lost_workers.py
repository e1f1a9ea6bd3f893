"""Shards whose worker process died: which episode ended it, and what becomes of the others.

A pool tells only that one of its workers died, and all of its unfinished work is lost with it. So each episode of
such a shard is made again in a process of its own: one that dies there died of this episode.
"""

from dataclasses import replace
from pathlib import Path

from rlhfblender_core.dataset.episode_writer import discard_staged
from rlhfblender_core.dataset.staged import StagedShard
from rlhfblender_core.errors import WorkerLostError
from rlhfblender_core.rollout.shards import Shard, episode_folder, roll_out_shard
from rlhfblender_core.workers.pool import Workers

#: In a process of its own. The first death may have been the system's doing, for want of memory.
_TRIES = 2


def roll_out_in_workers(workers: Workers, shard: Shard, staging: Path) -> StagedShard:
    """Rolls out the shard's episodes in a worker; an episode that ends its process is that episode's failure.

    Args:
        workers: where.
        shard: which episodes.
        staging: folder of the run.

    Raises:
        RLHFBlenderError: what isn't one episode's own.
    """
    try:
        return workers.run(roll_out_shard, shard, staging)
    except WorkerLostError:
        return _one_by_one(workers, shard, staging)


def _one_by_one(workers: Workers, shard: Shard, staging: Path) -> StagedShard:
    staged = StagedShard(shard.name, shard.key, (), {})
    tries = _TRIES
    for episode in shard.episodes:
        made = _made_alone(workers, replace(shard, episodes=(episode,)), staging, tries)
        if isinstance(made, WorkerLostError):
            tries = 1  # it is the environment's way; no need to prove it twice for each
            discard_staged(episode_folder(shard, episode, staging))
            line = f"episode {episode} failed: {shard.settings.environment.env_id} ended its process ({made})"
            made = StagedShard(shard.name, shard.key, (), {episode: line})
        staged = replace(
            staged,
            episodes=staged.episodes + made.episodes,
            failures={**staged.failures, **made.failures},
            seconds=staged.seconds + made.seconds,
            traces={**staged.traces, **made.traces},
        )
    return staged


def _made_alone(workers: Workers, shard: Shard, staging: Path, tries: int) -> StagedShard | WorkerLostError:
    lost = WorkerLostError()
    for _ in range(tries):
        try:
            return workers.run_alone(roll_out_shard, shard, staging)
        except WorkerLostError as error:
            lost = error
    return lost
