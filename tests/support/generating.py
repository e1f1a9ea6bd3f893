"""The generate run without Prefect, which takes 15 s to start: the same plan, shards, workers and publishing.

Also a command, for tests that kill it: ``python tests/generating.py ROOT DATABASE_URL --episodes 8 --workers 2``.
"""

import argparse
import dataclasses
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.publish import index_published, publish_and_index
from rlhfblender_core.dataset.published import made_meanwhile, read_published
from rlhfblender_core.errors import RLHFBlenderError, TransientError, one_line
from rlhfblender_core.planning.plan import GenerationPlan, plan_generation
from rlhfblender_core.planning.request import GenerationRequest, request_from_flags
from rlhfblender_core.registry import CheckpointRecord, open_existing_registry, open_registry
from rlhfblender_core.rollout.shards import Shard, cut_shards, roll_out_shard
from rlhfblender_core.runs.cleanup import remove_leftovers
from rlhfblender_core.runs.folders import Run, live_runs, open_run, spread
from rlhfblender_core.runs.sharing import taken_in_hand
from rlhfblender_core.storage import DataRoot, open_data_root
from rlhfblender_core.workers.pool import Workers

ENTRY_POINT = "tests.support.environments_for_tests.counting:Counting"
KEY = CheckpointKey("E", "random")
_TRIES = 6


def request(episodes: int, *, length: int = 6, register_only: bool = False, **others: object) -> GenerationRequest:
    """What the driver asks for: random episodes of the environment that counts."""
    asked = {
        "env": "Counting-v0",
        "exp": KEY.experiment,
        "random": True,
        "num_episodes": episodes,
        "env_gym_entrypoint": ENTRY_POINT,
        "env_kwargs": {"length": length},
        "register_only": register_only,
    }
    return request_from_flags({**asked, **others})


def register(database_url: str, asked: GenerationRequest, cache: Path) -> GenerationPlan:
    """Plans and registers, as the flow does."""
    existing = open_existing_registry(database_url)
    plan = plan_generation(asked, existing, cache)
    if existing is not None:
        existing.close()
    assert plan.experiment is not None
    with open_registry(database_url) as registry:
        registry.ensure_environment(plan.environment)
        registry.ensure_experiment(plan.experiment, replace_settings=plan.replace)
        for settings in plan.settings:
            registry.ensure_checkpoint(
                CheckpointRecord(experiment=plan.experiment.name, label=settings.label, step=settings.agent.step)
            )
    return plan


def generate(root: DataRoot, database_url: str, asked: GenerationRequest, workers: int = 0) -> int:
    """Makes the episodes that are missing; says how many those were."""
    with tempfile.TemporaryDirectory() as folder:
        plan = register(database_url, asked, Path(folder))
        published = read_published(root, KEY)
        remove_leftovers(root, [published])
        missing = published.missing(range(asked.num_episodes))
        made = 0
        with open_run(root, KEY.experiment) as run, Workers(workers, Path(folder)) as pool:
            shards = [Shard(KEY, plan.settings[0], part) for part in cut_shards(missing, max(1, workers))]
            live = live_runs(root, KEY.experiment)
            first = int(spread(live.index(run.folder.name)) * len(shards)) if run.folder.name in live else 0
            maker = _Maker(root, database_url, run, pool, frozenset(published.manifests))
            left = shards[first:] + shards[:first]
            with ThreadPoolExecutor(max(1, workers)) as threads:
                while left:
                    made += sum(threads.map(maker.make, left))
                    left = [shard for shard in left if not maker.is_done(shard)]
                    time.sleep(random.uniform(0.1, 0.3) if left else 0)
        with open_registry(database_url) as registry:
            index_published(root, registry, published)
    return made


@dataclasses.dataclass(frozen=True)
class _Maker:
    root: DataRoot
    database_url: str
    run: Run
    pool: Workers
    existing: frozenset[int]

    def made_by_others(self, shard: Shard) -> frozenset[int]:
        return made_meanwhile(self.root, shard.key, shard.settings.digest, set(shard.episodes) - self.existing)

    def is_done(self, shard: Shard) -> bool:
        return len(made_meanwhile(self.root, shard.key, shard.settings.digest, shard.episodes)) == len(shard.episodes)

    def make(self, shard: Shard) -> int:
        """Makes those that no other run has made or in hand; says how many those were."""
        for attempt in range(_TRIES):
            try:
                return self._try(shard)
            except TransientError:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("every try ends in return or raise")

    def _try(self, shard: Shard) -> int:
        with taken_in_hand(self.root, self.run, shard.key, shard.episodes, leave=True) as mine:
            others = self.made_by_others(shard)
            wanted = tuple(n for n in mine if n not in others)
            if wanted:
                staged = self.pool.run(roll_out_shard, dataclasses.replace(shard, episodes=wanted), self.run.folder)
                with open_registry(self.database_url) as registry:
                    publish_and_index(self.root, registry, staged)
        return len(wanted)


def main() -> int:
    """The command; exit codes as the flow's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("database_url")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--length", type=int, default=6)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--register-only", action="store_true")
    given = parser.parse_args()
    asked = request(given.episodes, length=given.length, register_only=given.register_only)
    try:
        if given.register_only:
            with tempfile.TemporaryDirectory() as folder:
                register(given.database_url, asked, Path(folder))
            return 0
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        made = generate(open_data_root(given.root), given.database_url, asked, given.workers)
        sys.stdout.write(f"made {made}\n")
    except RLHFBlenderError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 1 if isinstance(error, TransientError) else 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
