"""The flow ``verify`` without Prefect: the same survey and repair, one thing after the other."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from rlhfblender_core.dataset.listings import find_keys, find_unknown_files, list_checkpoint
from rlhfblender_core.dataset.publish import publish_and_index
from rlhfblender_core.environments import Trust
from rlhfblender_core.registry import open_existing_registry, open_registry
from rlhfblender_core.repair import Sources, plan_remakes, rebuild_index, remove_leftover_files
from rlhfblender_core.rollout.shards import Shard, roll_out_shard
from rlhfblender_core.runs.folders import live_runs, open_run
from rlhfblender_core.storage import DataRoot
from rlhfblender_core.verify import Findings, check_episodes, check_index, check_unknown_files

#: Every survey decodes all videos, so few here; the soak tests have 30.
EPISODES = 3
_TRUST = Trust(packages=frozenset({"tests"}))


def database(root: DataRoot) -> str:
    """The registry beside the data."""
    return f"sqlite:///{root.local_folder / 'rlhfblender.db'}"


def survey(root: DataRoot, database_url: str, experiment: str | None = None) -> Findings:
    """Everything that is wrong."""
    with ExitStack() as stack:
        registry = open_existing_registry(database_url)
        if registry is not None:
            stack.enter_context(registry)
        listings = []
        findings = check_unknown_files(find_unknown_files(root, experiment))
        for key in find_keys(root, registry, experiment):
            rows = [] if registry is None else registry.list_episodes(key.experiment, key.checkpoint)
            listing = list_checkpoint(root, key, rows, in_progress=bool(live_runs(root, key.experiment)))
            listings.append(listing)
            findings += check_unknown_files(listing.unknown_files) + check_episodes(root, listing, listing.episodes)
        return findings + Findings(check_index(root, registry, listings, findings.records))


def problems(root: DataRoot, database_url: str) -> list[str]:
    """Everything that is wrong, a line each."""
    return [str(problem) for problem in survey(root, database_url).problems]


def repair(root: DataRoot, database_url: str) -> list[str]:
    """Mends what can be mended; says what can't."""
    findings = survey(root, database_url)
    remove_leftover_files(root, findings.problems)
    with open_registry(database_url) as registry, tempfile.TemporaryDirectory() as cache:
        remakes, refusals = plan_remakes(findings, Sources(root, registry, Path(cache), {}, trust=_TRUST))
        with open_run(root) as run:
            for remake in remakes:
                shard = Shard(remake.key, remake.settings, remake.episodes)
                refusals += publish_and_index(root, registry, roll_out_shard(shard, run.folder)).failures.values()
        findings = survey(root, database_url)
        rebuild_index(root, registry, findings.problems, findings.records, _TRUST)
    return refusals
