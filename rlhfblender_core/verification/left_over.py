"""Files that dead runs left in the places of episodes: removed, unless a run makes these now."""

from collections.abc import Iterable, Iterator, Sequence

from rlhfblender_core.dataset.layout import CheckpointKey, EpisodeKey
from rlhfblender_core.locations import Locations
from rlhfblender_core.runs.claims import RunClaims, open_claims
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.storage import DataRoot, remove_files
from rlhfblender_core.verification.checks import Problem, Remedy, read_manifests


def remove_left_over(problems: Iterable[Problem], locations: Locations) -> int:
    """Removes the files that dead runs left, unless a run has published or claimed them since; says how many."""
    root = locations.open_root()
    removed = 0
    left_over: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.remedy is Remedy.REMOVE and problem.key is not None:
            left_over.setdefault(problem.key.experiment, []).append(problem)
    url = locations.database_url
    for experiment, found in left_over.items():
        # Claimed while they are removed: a run that starts now mustn't lose files before it writes their manifest.
        with open_run(root) as run, open_claims(url, run.folder, experiment, {}) as claims:
            ours = _claimed(claims, found)
            paths = list(_still_left_over(root, [problem for problem in found if problem.key in ours]))
            remove_files(root, paths)
            for key, numbers in _by_checkpoint(ours).items():
                claims.release(key, numbers)
        removed += len(paths)
    return removed


def _claimed(claims: RunClaims, found: Sequence[Problem]) -> frozenset[EpisodeKey]:
    """Those of the problems' episodes that no live run has claimed; they are this one's now."""
    episodes = _by_checkpoint(problem.key for problem in found if problem.key is not None)
    free = ((key, number) for key, numbers in episodes.items() for number in claims.claim(key, numbers).free)
    return frozenset(EpisodeKey(key.experiment, key.checkpoint, number) for key, number in free)


def _by_checkpoint(episodes: Iterable[EpisodeKey]) -> dict[CheckpointKey, set[int]]:
    numbers: dict[CheckpointKey, set[int]] = {}
    for episode in episodes:
        numbers.setdefault(CheckpointKey(episode.experiment, episode.checkpoint), set()).add(episode.episode)
    return numbers


def _still_left_over(root: DataRoot, found: Sequence[Problem]) -> Iterator[str]:
    manifests = read_manifests(root, [problem.key for problem in found if problem.key is not None])
    for problem in found:
        manifest = manifests.get(problem.key) if problem.key is not None else None
        if manifest is None or problem.path not in {record.path for record in manifest.artifacts.values()}:
            yield problem.path
