"""Tasks of the flow ``verify``: look at what is published, and mend it."""

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.listings import (
    CheckpointListing,
    EpisodeListing,
    find_keys,
    find_unknown_files,
    list_checkpoint,
)
from rlhfblender_core.registry import EpisodeRecord, open_existing_registry, open_registry
from rlhfblender_core.repair import Remake, Sources, plan_remakes, rebuild_index, remove_leftover_files
from rlhfblender_core.runs.folders import live_runs
from rlhfblender_core.verify import Findings, Problem, check_episodes, check_index, check_unknown_files
from tasks.config import Locations, cache_folder, storage_options
from tasks.retries import RETRY_TRANSIENT


@task(name="find-checkpoints", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def find_published(experiment: str | None, locations: Locations) -> list[CheckpointKey]:
    """All checkpoints that have files or rows, of one experiment or all."""
    registry = open_existing_registry(locations.database_url)
    if registry is None:
        return find_keys(locations.open_root(), None, experiment)
    with registry:
        return find_keys(locations.open_root(), registry, experiment)


@task(
    name="list-episodes",
    task_run_name="list-episodes {key.experiment} {key.checkpoint}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def list_episodes(key: CheckpointKey, locations: Locations) -> CheckpointListing:
    """What there is of a checkpoint, as far as listings and the registry tell."""
    root = locations.open_root()
    registry = open_existing_registry(locations.database_url)
    rows: list[EpisodeRecord] = []
    if registry is not None:
        with registry:
            rows = registry.list_episodes(key.experiment, key.checkpoint)
    return list_checkpoint(root, key, rows, in_progress=bool(live_runs(root, key.experiment)))


@task(
    name="check-episodes",
    task_run_name="check-episodes {listing.key.experiment} {listing.key.checkpoint} from {episodes[0].number}",
    cache_policy=NO_CACHE,
    **RETRY_TRANSIENT,
)
def check_files(listing: CheckpointListing, episodes: Sequence[EpisodeListing], locations: Locations) -> Findings:
    """Checks these episodes' files against their manifests."""
    findings = check_episodes(locations.open_root(), listing, episodes)
    logger, key = get_run_logger(), listing.key
    for problem in findings.problems:
        logger.warning("%s", problem)
    first, last = episodes[0].number, episodes[-1].number
    logger.info("%s %s: episodes %d–%d, %d files checked", key.experiment, key.checkpoint, first, last, findings.files)
    return findings


@task(name="find-strangers", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def find_files_of_others(
    experiment: str | None, listings: Sequence[CheckpointListing], locations: Locations
) -> Findings:
    """Names what lies among the data and is no part of it."""
    paths = find_unknown_files(locations.open_root(), experiment)
    findings = check_unknown_files([*paths, *(path for listing in listings for path in listing.unknown_files)])
    _logged(findings.problems)
    return findings


@task(name="check-index", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def check_registry(
    listings: Sequence[CheckpointListing], records: Sequence[EpisodeRecord], locations: Locations
) -> tuple[Problem, ...]:
    """Compares the registry's rows with the manifests."""
    root = locations.open_root()
    registry = open_existing_registry(locations.database_url)
    if registry is None:
        return _logged(check_index(root, None, listings, records))
    with registry:
        return _logged(check_index(root, registry, listings, records))


def _logged(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    for problem in problems:
        get_run_logger().warning("%s", problem)
    return problems


@task(name="remove-orphans", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def remove_files_of_nobody(problems: Sequence[Problem], locations: Locations) -> int:
    """Removes the files that belong to no episode."""
    return remove_leftover_files(locations.open_root(), problems)


@task(name="plan-repair", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def plan_repair(findings: Findings, locations: Locations, *, trust_checkpoint: bool) -> tuple[list[Remake], list[str]]:
    """Which episodes are made again, with which settings; and lines about those that can't be."""
    root = locations.open_root()
    with open_registry(locations.database_url) as registry:
        sources = Sources(root, registry, cache_folder(), storage_options(), trust_checkpoint, locations.trust())
        return plan_remakes(findings, sources)


@task(name="rebuild-index", cache_policy=NO_CACHE, **RETRY_TRANSIENT)
def rebuild_registry(problems: Sequence[Problem], records: Sequence[EpisodeRecord], locations: Locations) -> None:
    """Brings the registry's rows to what the manifests say."""
    root = locations.open_root()
    with open_registry(locations.database_url) as registry:
        rebuild_index(root, registry, problems, records, locations.trust())
