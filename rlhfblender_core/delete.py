"""Deleting an experiment, some of its checkpoints, or some of their episodes: manifests first, then files, then rows.

In this order whatever is left after a crash is no episode any more, and the same command finishes the job. Other
experiments and the environment stay as they are.
"""

import contextlib
import itertools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from rlhfblender_core.argument_types import check_arguments
from rlhfblender_core.dataset.layout import (
    EXTENSIONS,
    ArtifactKind,
    CheckpointKey,
    EpisodeKey,
    artifact_folder,
    manifest_folder,
    manifest_path,
    parse_episode_number,
)
from rlhfblender_core.dataset.listings import find_keys
from rlhfblender_core.dataset.manifests import parse_manifest
from rlhfblender_core.dataset.publish import episode_record
from rlhfblender_core.dataset.selection import EVERYTHING, EpisodeSelection, parse_selection
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.names import checked_name
from rlhfblender_core.registry import Registry, registry_if_any
from rlhfblender_core.runs.claims import DELETED, dead_claims, live_runs, open_claims
from rlhfblender_core.runs.folders import open_run, remove_unfinished
from rlhfblender_core.step_runner import LocalRunner, StepRunner
from rlhfblender_core.storage import (
    DataRoot,
    check_no_links,
    list_names,
    list_sizes,
    read_many,
    remove_files,
    sizes_of,
    storage_errors,
)
from rlhfblender_core.wording import InWords, counted, did_you_mean

#: Manifests that are read at once to see whether a condition is met.
_AT_ONCE = 500
#: So many episodes are asked for by the names of their files, however many there are besides; of more, all are listed.
_ASKED_BY_NAME = 30


@dataclass(frozen=True)
class CheckpointDeletion:
    """What goes of a checkpoint: how much, and how to find it again. Never a listing, which tasks would carry along.

    Attributes:
        key: experiment and checkpoint.
        selection: which of its episodes.
        episodes: how many manifests go.
        files: how many other files.
        size: bytes of all of them.
    """

    key: CheckpointKey
    selection: EpisodeSelection
    episodes: int
    files: int
    size: int


@dataclass(frozen=True)
class Deletion(InWords):
    """What goes.

    Attributes:
        experiment: its name.
        checkpoints: which of its checkpoints.
        is_whole: whether the experiment itself goes too.
        selection: which episodes of these checkpoints.
    """

    experiment: str
    checkpoints: tuple[CheckpointDeletion, ...]
    is_whole: bool
    selection: EpisodeSelection = EVERYTHING

    @property
    def summary(self) -> str:
        """What goes, in one line."""
        episodes = sum(checkpoint.episodes for checkpoint in self.checkpoints)
        files = episodes + sum(checkpoint.files for checkpoint in self.checkpoints)
        size = sum(checkpoint.size for checkpoint in self.checkpoints) / 1e6
        labels = ", ".join(checkpoint.key.checkpoint for checkpoint in self.checkpoints) or "no checkpoints"
        what = "" if self.is_whole else f"episodes ({self.selection}) of "
        if not self.is_whole and self.selection.is_everything:
            what = "checkpoints of "
        counts = f"{counted(episodes, 'episode')}, {counted(files, 'file')}, {size:,.1f} MB"
        return f"{what}experiment {self.experiment} ({labels}): {counts}"


@check_arguments
def delete(  # noqa: PLR0913 (the command's flags, by keyword)
    *,
    exp: str,
    checkpoints: Sequence[int | str] = (),
    episodes: str | None = None,
    where: str | None = None,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Deletion:
    """Deletes an experiment's episodes, files and rows, or those of some checkpoints. Asks nobody.

    Args:
        exp: the experiment.
        checkpoints: labels; none for all of them, and the experiment itself.
        episodes: only these numbers and spans, e.g. ``3,5-9``.
        where: only episodes that meet this condition, e.g. ``return > 100`` (:mod:`rlhfblender_core.dataset.where`).
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.

    Returns:
        What was deleted.

    Raises:
        RequestError: there is no such experiment, checkpoint or episode, or a run is under way on it.
        TransientError: the storage or the registry is gone.
    """
    locations = locate(data_root, database_url, storage_options)
    return delete_all(exp, checkpoints, LocalRunner(), locations, parse_selection(episodes, where))


def delete_all(
    exp: str | None,
    checkpoints: Sequence[int | str],
    runner: StepRunner,
    locations: Locations,
    selection: EpisodeSelection = EVERYTHING,
) -> Deletion:
    """Deletes by the runner's steps, see :func:`delete`: manifests first, then files, then rows."""
    deletion = plan_delete(exp, checkpoints, locations, selection)
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


def plan_delete(
    exp: str | None,
    checkpoints: Sequence[int | str],
    locations: Locations,
    selection: EpisodeSelection = EVERYTHING,
) -> Deletion:
    """What would go.

    Raises:
        RequestError: there is no such experiment, checkpoint or episode, or a run is under way on it.
    """
    if not exp:
        raise InvalidParameterError("Give --exp with the experiment to delete.")
    with registry_if_any(locations.database_url) as registry:
        return plan_deletion(locations.open_root(), registry, exp, checkpoints, selection)


def delete_episodes(deletion: CheckpointDeletion, locations: Locations) -> None:
    """Removes a checkpoint's manifests, then its files, then its rows; may be repeated."""
    with registry_if_any(locations.database_url) as registry:
        delete_checkpoint(locations.open_root(), registry, deletion)


def forget_experiment(deletion: Deletion, locations: Locations) -> None:
    """Removes the experiment's row, where all of it goes; may be repeated."""
    with registry_if_any(locations.database_url) as registry:
        finish_deletion(registry, deletion)


def plan_deletion(
    root: DataRoot,
    registry: Registry | None,
    experiment: str,
    checkpoints: Sequence[int | str] = (),
    selection: EpisodeSelection = EVERYTHING,
) -> Deletion:
    """What would go; nothing is changed but that dead runs' unfinished files are removed.

    Args:
        root: the data root.
        registry: None where there is none.
        experiment: whose episodes.
        checkpoints: labels; none for the whole experiment.
        selection: which episodes of these.

    Raises:
        InvalidParameterError: there is no such experiment, checkpoint or episode, or a run is under way on it.
    """
    checked_name(experiment, "experiment")
    remove_unfinished(root)
    keys = find_keys(root, registry, experiment)
    wanted = {str(label) for label in checkpoints}
    unknown = sorted(wanted - {key.checkpoint for key in keys})
    if unknown:
        known = did_you_mean(unknown[0], (key.checkpoint for key in keys))
        raise InvalidParameterError(f"Experiment {experiment!r} has no checkpoint {unknown[0]!r}. {known}")
    if registry is not None and live_runs(registry, experiment):
        raise InvalidParameterError(f"A run is under way on experiment {experiment!r}. Wait for it, or stop it first.")
    planned = [
        _plan_checkpoint(root, registry, key, selection) for key in keys if not wanted or key.checkpoint in wanted
    ]
    if selection.is_everything:
        return Deletion(experiment, tuple(planned), not wanted)
    chosen = tuple(each for each in planned if each.episodes or each.files)
    if not chosen:
        raise InvalidParameterError(f"No episode of experiment {experiment!r} is chosen by {selection}.")
    return Deletion(experiment, chosen, is_whole=False, selection=selection)


def _plan_checkpoint(
    root: DataRoot, registry: Registry | None, key: CheckpointKey, selection: EpisodeSelection
) -> CheckpointDeletion:
    if root.is_local:
        check_no_links(root, [root.local_folder / folder for folder in _folders(key)])
    numbers = _chosen_numbers(root, registry, key, selection)
    chosen = [
        [size for name, size in _sizes(root, folder, extension, numbers).items() if _goes(name, extension, numbers)]
        for folder, extension in _folders(key).items()
    ]
    episodes, *files = map(len, chosen)
    return CheckpointDeletion(key, selection, episodes, sum(files), sum(map(sum, chosen)))


def _folders(key: CheckpointKey) -> dict[str, str]:
    """Folders of the checkpoint's files, with the extension of these: that of manifests, which go first, and others."""
    return {manifest_folder(key): ".json", **{artifact_folder(kind, key): EXTENSIONS[kind] for kind in ArtifactKind}}


def _chosen_numbers(
    root: DataRoot, registry: Registry | None, key: CheckpointKey, selection: EpisodeSelection
) -> Container[int] | None:
    """Numbers of the episodes that go: a set where they are known, which may be of episodes that aren't there.

    None for all, where no registry tells them from what was laid there by hand.
    """
    if selection.where is not None:
        return _matching(root, registry, key, selection)
    episodes = selection.episodes
    if episodes is not None and episodes.count <= _ASKED_BY_NAME:
        return frozenset(episodes)
    if registry is None:
        return episodes
    return frozenset(number for number in _known_numbers(root, registry, key) if selection.may_have(number))


def _known_numbers(root: DataRoot, registry: Registry, key: CheckpointKey) -> frozenset[int]:
    """Episodes that runs made: those with a manifest, a row (a deletion that was killed), or a dead run's claim."""
    names = list_names(root, manifest_folder(key))
    committed = (number for name in names if (number := parse_episode_number(name, ".json")) is not None)
    indexed = registry.each_number(key.experiment, key.checkpoint)
    claimed = (claims.get(key.checkpoint, ()) for claims in registry.list_claims(key.experiment).values())
    return frozenset(itertools.chain(committed, indexed, *claimed))


def _are_few(numbers: Container[int] | None) -> TypeGuard[frozenset[int]]:
    return isinstance(numbers, frozenset) and len(numbers) <= _ASKED_BY_NAME


def _sizes(root: DataRoot, folder: str, extension: str, numbers: Container[int] | None) -> Mapping[str, int]:
    """Bytes of the files in the folder, or of those alone that go."""
    if not _are_few(numbers):
        return list_sizes(root, folder)
    paths = {f"{folder}/{number}{extension}": f"{number}{extension}" for number in numbers}
    return {paths[path]: size for path, size in sizes_of(root, paths).items()}


def _goes(name: str, extension: str, numbers: Container[int] | None) -> bool:
    number = parse_episode_number(name, extension)
    return number is not None and (numbers is None or number in numbers)


def _matching(
    root: DataRoot, registry: Registry | None, key: CheckpointKey, selection: EpisodeSelection
) -> frozenset[int]:
    """Numbers of the episodes that meet the condition: by their rows, and by the manifests of those without one."""
    rows = registry.each_episode(key.experiment, key.checkpoint) if registry is not None else ()
    matching, indexed = set(), set()
    for row in rows:
        indexed.add(row.number)
        if selection.matches(row):
            matching.add(row.number)
    names = list_names(root, manifest_folder(key))
    numbers = (number for name in names if (number := parse_episode_number(name, ".json")) is not None)
    others = (number for number in numbers if number not in indexed and selection.may_have(number))
    while part := list(itertools.islice(others, _AT_ONCE)):
        paths = [manifest_path(EpisodeKey(key.experiment, key.checkpoint, number)) for number in part]
        for path, content in read_many(root, paths).items():
            with contextlib.suppress(DataNotUsableError):  # of what can't be read nothing is known
                record = episode_record(parse_manifest(content, path))
                if selection.matches(record):
                    matching.add(record.number)
    return frozenset(matching)


def delete_checkpoint(root: DataRoot, registry: Registry | None, deletion: CheckpointDeletion) -> None:
    """Removes a checkpoint's manifests, then its files, then its rows; may be repeated."""
    key, selection = deletion.key, deletion.selection
    numbers = _chosen_numbers(root, registry, key, selection)
    for folder, extension in _folders(key).items():  # manifests come first
        if _are_few(numbers):
            names = [f"{number}{extension}" for number in sorted(numbers)]
        else:
            names = [name for name in list_names(root, folder) if _goes(name, extension, numbers)]
        remove_files(root, [f"{folder}/{name}" for name in names])
    if root.is_local:
        _remove_empty_folders(root, key)
    if registry is None:
        return
    if selection.is_everything or numbers is None:
        registry.forget_checkpoint(key.experiment, key.checkpoint)
        return
    # A dead run's claim says that files in the episode's places are ours; what is laid there from now on isn't.
    claimed = dead_claims(registry, key.experiment).get(key.checkpoint, frozenset())
    registry.forget_claims(key.experiment, key.checkpoint, [number for number in claimed if number in numbers])
    if isinstance(numbers, frozenset):
        registry.forget_episodes(key.experiment, key.checkpoint, numbers)
    else:
        rows = [number for number in registry.each_number(key.experiment, key.checkpoint) if number in numbers]
        registry.forget_episodes(key.experiment, key.checkpoint, rows)


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
