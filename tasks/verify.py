"""Tasks of the flow ``verify``: look at what is published, and repair it. Found by the steps that they wrap."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prefect import get_run_logger

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.locations import Locations
from rlhfblender_core.registry import EpisodeRecord
from rlhfblender_core.repair import plan_repair, rebuild_rows
from rlhfblender_core.verification.checks import Findings, Problem
from rlhfblender_core.verification.derivations import derive_broken_files
from rlhfblender_core.verification.left_over import remove_left_over
from rlhfblender_core.verification.quarantine import move_to_quarantine
from rlhfblender_core.verification.remakes import Refusal, Remake
from rlhfblender_core.verify import (
    Listed,
    Part,
    check_files,
    find_checkpoints,
    find_unknown,
    find_unregistered,
    list_episodes,
)
from tasks.steps import task_for


@task_for(find_checkpoints, "find-checkpoints")
def _find_checkpoints(experiment: str | None, locations: Locations) -> list[CheckpointKey]:
    return find_checkpoints(experiment, locations)


@task_for(list_episodes, "list-episodes", "list-episodes {key.experiment} {key.checkpoint}")
def _list_episodes(key: CheckpointKey, folder: Path, locations: Locations, *, quick: bool) -> Listed:
    return list_episodes(key, folder, locations, quick=quick)


@task_for(check_files, "check-episodes", "check-episodes {part.key.experiment} {part.key.checkpoint} from {part.first}")
def _check_files(part: Part, journal: Path, locations: Locations, *, quick: bool) -> Findings:
    findings = check_files(part, journal, locations, quick=quick)
    logger, key = get_run_logger(), part.key
    _log(findings.problems)
    where = f"{key.experiment} {key.checkpoint}"
    logger.info("%s: episodes %d-%d, %d files checked", where, part.first, part.last, findings.files)
    return findings


@task_for(find_unknown, "find-unknown-files")
def _find_unknown(experiment: str | None, unknown_files: Sequence[str], locations: Locations) -> Findings:
    findings = find_unknown(experiment, unknown_files, locations)
    _log(findings.problems)
    return findings


@task_for(find_unregistered, "find-unregistered")
def _find_unregistered(published: Mapping[str, int], locations: Locations) -> tuple[Problem, ...]:
    problems = find_unregistered(published, locations)
    _log(problems)
    return problems


@task_for(remove_left_over, "remove-leftovers")
def _remove_left_over(problems: Iterable[Problem], locations: Locations) -> int:
    return remove_left_over(problems, locations)


@task_for(move_to_quarantine, "move-to-quarantine")
def _move_to_quarantine(problems: Sequence[Problem], locations: Locations) -> int:
    return move_to_quarantine(problems, locations)


@task_for(derive_broken_files, "derive-files")
def _derive_broken_files(
    problems: Sequence[Problem], locations: Locations, *, replace_thumbnails: bool
) -> frozenset[Problem]:
    return derive_broken_files(problems, locations, replace_thumbnails=replace_thumbnails)


@task_for(plan_repair, "plan-repair")
def _plan_repair(
    findings: Findings, locations: Locations, *, trust_checkpoint: bool
) -> tuple[list[Remake], list[Refusal]]:
    return plan_repair(findings, locations, trust_checkpoint=trust_checkpoint)


@task_for(rebuild_rows, "rebuild-index")
def _rebuild_rows(problems: Sequence[Problem], records: Sequence[EpisodeRecord], locations: Locations) -> None:
    rebuild_rows(problems, records, locations)


def _log(problems: Sequence[Problem]) -> None:
    for problem in problems:
        get_run_logger().warning("%s", problem)
