"""Deleting an experiment, or some of its checkpoints: manifests first, then files, then rows.

In this order whatever is left after a crash is no episode any more, and the same command finishes the job. Other
experiments and the environment stay as they are.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey, artifact_folder, manifest_folder
from rlhfblender_core.dataset.listings import find_keys
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.names import checked_name
from rlhfblender_core.registry import Registry, registry_if_any
from rlhfblender_core.runs.claims import DELETED, live_runs, open_claims
from rlhfblender_core.runs.folders import open_run, remove_unfinished
from rlhfblender_core.step_runner import LocalRunner, StepRunner
from rlhfblender_core.storage import DataRoot, list_sizes, remove_files, storage_errors
from rlhfblender_core.wording import counted


@dataclass(frozen=True)
class CheckpointDeletion:
    """What goes of a checkpoint.

    Attributes:
        key: experiment and checkpoint.
        manifests: paths of its manifests.
        files: paths of its other files.
        size: bytes of all of them.
    """

    key: CheckpointKey
    manifests: tuple[str, ...]
    files: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class Deletion:
    """What goes.

    Attributes:
        experiment: its name.
        checkpoints: which of its checkpoints.
        is_whole: whether the experiment itself goes too.
    """

    experiment: str
    checkpoints: tuple[CheckpointDeletion, ...]
    is_whole: bool

    @property
    def summary(self) -> str:
        """What goes, in one line."""
        episodes = sum(len(checkpoint.manifests) for checkpoint in self.checkpoints)
        files = episodes + sum(len(checkpoint.files) for checkpoint in self.checkpoints)
        size = sum(checkpoint.size for checkpoint in self.checkpoints) / 1e6
        labels = ", ".join(checkpoint.key.checkpoint for checkpoint in self.checkpoints) or "no checkpoints"
        what = f"experiment {self.experiment}" if self.is_whole else f"checkpoints of experiment {self.experiment}"
        return f"{what} ({labels}): {counted(episodes, 'episode')}, {counted(files, 'file')}, {size:,.1f} MB"


def delete(
    *,
    exp: str,
    checkpoints: Sequence[int | str] = (),
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Deletion:
    """Deletes an experiment's episodes, files and rows, or those of some checkpoints. Asks nobody.

    Args:
        exp: the experiment.
        checkpoints: labels; none for all of them, and the experiment itself.
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.

    Returns:
        What was deleted.

    Raises:
        RequestError: there is no such experiment or checkpoint, or a run is under way on it.
        TransientError: the storage or the registry is gone.
    """
    return delete_all(exp, checkpoints, LocalRunner(), locate(data_root, database_url, storage_options))


def delete_all(exp: str | None, checkpoints: Sequence[int | str], runner: StepRunner, locations: Locations) -> Deletion:
    """Deletes by the runner's steps, see :func:`delete`: manifests first, then files, then rows."""
    deletion = plan_delete(exp, checkpoints, locations)
    root = locations.open_root()
    with open_run(root) as run, contextlib.ExitStack() as claimed:
        # Verify mustn't take what is half deleted for damage, and no run may make meanwhile what goes.
        with registry_if_any(locations.database_url) as registry:
            if registry is not None:
                digests = {checkpoint.key.checkpoint: DELETED for checkpoint in deletion.checkpoints}
                claimed.enter_context(open_claims(locations.database_url, run.folder, deletion.experiment, digests))
        for checkpoint in deletion.checkpoints:
            runner.do(delete_episodes, checkpoint, locations)
        runner.do(forget_experiment, deletion, locations)
    return deletion


def plan_delete(exp: str | None, checkpoints: Sequence[int | str], locations: Locations) -> Deletion:
    """What would go.

    Raises:
        RequestError: there is no such experiment or checkpoint, or a run is under way on it.
    """
    if not exp:
        raise InvalidParameterError("Give --exp with the experiment to delete.")
    with registry_if_any(locations.database_url) as registry:
        return plan_deletion(locations.open_root(), registry, exp, checkpoints)


def delete_episodes(deletion: CheckpointDeletion, locations: Locations) -> None:
    """Removes a checkpoint's manifests, then its files, then its rows; may be repeated."""
    with registry_if_any(locations.database_url) as registry:
        delete_checkpoint(locations.open_root(), registry, deletion)


def forget_experiment(deletion: Deletion, locations: Locations) -> None:
    """Removes the experiment's row, where all of it goes; may be repeated."""
    with registry_if_any(locations.database_url) as registry:
        finish_deletion(registry, deletion)


def plan_deletion(
    root: DataRoot, registry: Registry | None, experiment: str, checkpoints: Sequence[int | str] = ()
) -> Deletion:
    """What would go; nothing is changed but that dead runs' unfinished files are removed.

    Args:
        root: the data root.
        registry: None where there is none.
        experiment: whose episodes.
        checkpoints: labels; none for the whole experiment.

    Raises:
        InvalidParameterError: there is no such experiment or checkpoint, or a run is under way on it.
    """
    checked_name(experiment, "experiment")
    remove_unfinished(root)
    keys = find_keys(root, registry, experiment)
    wanted = {str(label) for label in checkpoints}
    unknown = sorted(wanted - {key.checkpoint for key in keys})
    if unknown:
        known = ", ".join(key.checkpoint for key in keys) or "none"
        raise InvalidParameterError(f"Experiment {experiment!r} has no checkpoint {unknown[0]!r}. It has: {known}.")
    if registry is not None and live_runs(registry, experiment):
        raise InvalidParameterError(f"A run is under way on experiment {experiment!r}. Wait for it, or stop it first.")
    chosen = [key for key in keys if not wanted or key.checkpoint in wanted]
    return Deletion(experiment, tuple(_plan_checkpoint(root, key) for key in chosen), not wanted)


def _plan_checkpoint(root: DataRoot, key: CheckpointKey) -> CheckpointDeletion:
    sizes = {folder: list_sizes(root, folder) for folder in _folders(key)}
    paths = {folder: tuple(f"{folder}/{name}" for name in names) for folder, names in sizes.items()}
    manifests = paths.pop(manifest_folder(key))
    files = tuple(path for folder in paths.values() for path in folder)
    return CheckpointDeletion(key, manifests, files, sum(sum(names.values()) for names in sizes.values()))


def _folders(key: CheckpointKey) -> list[str]:
    return [manifest_folder(key), *(artifact_folder(kind, key) for kind in ArtifactKind)]


def delete_checkpoint(root: DataRoot, registry: Registry | None, deletion: CheckpointDeletion) -> None:
    """Removes a checkpoint's manifests, then its files, then its rows; may be repeated."""
    remove_files(root, deletion.manifests)
    remove_files(root, deletion.files)
    if root.is_local:
        _remove_empty_folders(root, deletion.key)
    if registry is not None:
        registry.forget_checkpoint(deletion.key.experiment, deletion.key.checkpoint)


def finish_deletion(registry: Registry | None, deletion: Deletion) -> None:
    """Removes the experiment's own row, where all of it goes; may be repeated."""
    if deletion.is_whole and registry is not None:
        registry.forget_experiment(deletion.experiment)


def _remove_empty_folders(root: DataRoot, key: CheckpointKey) -> None:
    with storage_errors(root):
        for folder in _folders(key):
            path = root.local_folder / folder
            with contextlib.suppress(OSError):  # something else lies in it, or it is gone
                path.rmdir()
                path.parent.rmdir()
