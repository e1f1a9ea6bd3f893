"""What dead runs left behind: unfinished files, and published files whose manifest never came. Live runs' stay."""

from collections.abc import Iterable
from datetime import timedelta

from rlhfblender_core.dataset.layout import RUNS, CheckpointKey
from rlhfblender_core.dataset.published import Published, read_published
from rlhfblender_core.runs.folders import live_runs, no_run_starting, remove_dead_runs, runs_folder
from rlhfblender_core.runs.markers import EXPIRY_S, storage_now
from rlhfblender_core.storage import DataRoot, modified_times, remove_files, storage_errors


def remove_leftovers(root: DataRoot, published: Iterable[Published]) -> int:
    """Removes what dead runs left of these checkpoints; says how many files that were.

    Args:
        root: the data root.
        published: what was read of the checkpoints; those with files of nobody are read again.

    Raises:
        StorageNotUsableError, StorageUnavailableError: see :mod:`rlhfblender_core.storage`.
    """
    with storage_errors(root):
        remove_dead_runs(runs_folder(root))
    return sum(_remove_orphans(root, checkpoint.key) for checkpoint in published if checkpoint.leftovers())


def _remove_orphans(root: DataRoot, key: CheckpointKey) -> int:
    # A run that starts now waits; one that started before is seen. So what has no manifest now never gets one.
    with no_run_starting(root):
        if live_runs(root, key.experiment):
            return 0
        leftovers = read_published(root, key).leftovers()
        if not root.is_local:
            leftovers = _old_enough(root, key, leftovers)
        remove_files(root, leftovers)
    return len(leftovers)


def _old_enough(root: DataRoot, key: CheckpointKey, paths: Iterable[str]) -> tuple[str, ...]:
    """Those that no run can be about to commit: on object storage a run that just starts isn't kept waiting."""
    now = storage_now(root, f"{RUNS}/{key.experiment}")
    times = modified_times(root, paths)
    return tuple(path for path, moment in times.items() if now - moment > timedelta(seconds=EXPIRY_S))
