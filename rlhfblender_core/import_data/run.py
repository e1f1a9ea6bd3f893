"""Importing: every file of a source is checked, converted and published, then its experiment is registered.

A data set of this project's own layout is merged (:mod:`rlhfblender_core.import_data.merge`).
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhfblender_core.argument_types import check_arguments
from rlhfblender_core.dataset.layout import MANIFESTS, CheckpointKey, EpisodeKey, manifest_path
from rlhfblender_core.dataset.manifests import Manifest, canonical_digest, parse_manifest
from rlhfblender_core.dataset.publish import episode_record
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.import_data.episodes import ImportedBatch, ImportTarget, import_episodes
from rlhfblender_core.import_data.labels import import_action_labels
from rlhfblender_core.import_data.merge import merge_episodes, store_labels
from rlhfblender_core.import_data.merge_plan import (
    Merge,
    MergePlan,
    MergeRequest,
    episode_numbers,
    is_data_set,
    plan_merge,
)
from rlhfblender_core.import_data.plan import ImportPlan, ImportRequest, check_locations, plan_import
from rlhfblender_core.import_data.sources import SourceCheckpoint, data_folder, source_folder
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.registry import DEFAULT_PROJECT, Registry, open_registry, registry_if_any
from rlhfblender_core.runs.claims import RunClaims, open_claims, this_machine
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.step_runner import LocalRunner, StepRunner, concurrency_for
from rlhfblender_core.steps import register_environment, register_experiment
from rlhfblender_core.storage import DataRoot, check_writable, open_data_root, read_many, storage_errors
from rlhfblender_core.wording import InWords, counted
from rlhfblender_core.workers.pool import available_cores

#: Episodes in one step: their videos are decoded, which takes a second or so each.
_BATCH = 8
#: The same of those that are merged, which are copied.
_MERGED_AT_ONCE = 64
#: Rows written in one transaction.
_INDEXED_AT_ONCE = 500


@dataclass(frozen=True)
class Imported(InWords):
    """What a run of import_data achieved.

    Attributes:
        experiments: their names; one, where the source isn't a data set of this layout.
        data_root: where everything is, as a person would use it.
        batches: what became of the episodes.
        labels: pictures of actions that were stored.
        faults: one line per thing that was not imported, naming the file.
        notes: one line per thing that was missing or left out.
    """

    experiments: tuple[str, ...]
    data_root: str
    batches: tuple[ImportedBatch, ...]
    labels: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def made(self) -> int:
        """Episodes imported now."""
        return sum(len(batch.made) for batch in self.batches)

    @property
    def existing(self) -> int:
        """Episodes that were there already."""
        return sum(len(batch.existing) for batch in self.batches)

    @property
    def summary(self) -> str:
        """One line about everything."""
        failed = sum(len(batch.faults) for batch in self.batches)
        labels = f", {self.labels} pictures of actions" if self.labels else ""
        made, existing = counted(self.made, "episode"), f"{self.existing:,} already there"
        return f"{made} imported, {existing}, {failed:,} not imported{labels}"

    def __str__(self) -> str:
        return "\n".join([*self.faults, *self.notes, self.summary])


@check_arguments
def import_data(  # noqa: PLR0913 (one per flag)
    folder: str | None = None,
    *,
    exp: str | None = None,
    env: str | None = None,
    project: str = DEFAULT_PROJECT,
    source_exp: str | None = None,
    overwrite: bool = False,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Imported:
    """Imports episodes that were made elsewhere, or merges a data set of this layout, without Prefect.

    Args:
        folder: with ``episodes/``, ``rewards/``, ``renders/`` …; it is only read. A data set of this layout may be on
            any storage. None for the data root itself, where somebody has laid files by hand.
        exp: experiment that the episodes become; None for that of a data set of this layout.
        env: Gymnasium id of their environment; it needn't be installed. None where manifests say it.
        project: of the experiment.
        source_exp: which experiment of the folder, where it has several.
        overwrite: whether to replace existing episodes that were made otherwise.
        data_root: folder or fsspec URL.
        database_url: of the registry; None for SQLite beside the data.
        storage_options: for fsspec.

    Raises:
        RequestError: with what is wrong and what to do.
        TransientError: the storage or the registry is gone.
    """
    locations = locate(data_root, database_url, storage_options)
    request = import_request(folder, exp, env, locations, project=project, source_exp=source_exp, overwrite=overwrite)
    return import_all(request, LocalRunner(), locations)


def import_request(  # noqa: PLR0913 (one per flag)
    folder: str | None,
    exp: str | None,
    env: str | None,
    locations: Locations,
    *,
    project: str = DEFAULT_PROJECT,
    source_exp: str | None = None,
    overwrite: bool = False,
) -> ImportRequest | MergeRequest:
    """What is asked for: an import, or a merge where the source is another data set of this layout.

    Raises:
        RequestError: the source isn't there, or isn't said to be what it has to be.
    """
    if folder is not None:
        source = _open_source(folder, locations)
        if not _is_same_place(source, locations.open_root()) and is_data_set(source):
            return MergeRequest(source.url, exp, env, project, source_exp, overwrite)
    place = source_of(folder, locations)
    if exp is None or env is None:
        data_folder(place)  # a folder that isn't there has no names either
        raise InvalidParameterError("Name the experiment and the environment of the episodes: --exp NAME --env ID.")
    return ImportRequest(place, exp, env, project, source_exp, overwrite)


def _open_source(folder: str, locations: Locations) -> DataRoot:
    """The source; of a local folder the ``data`` in it, where that is the data set."""
    options = dict(locations.storage_options)
    root = open_data_root(folder, options)
    if not root.is_local:
        return root
    place = source_folder(folder)
    with storage_errors(root):  # a name may be too long
        is_inside = not (place / MANIFESTS).is_dir() and (place / "data" / MANIFESTS).is_dir()
    return open_data_root(place / "data" if is_inside else place, options)


def _is_same_place(one: DataRoot, other: DataRoot) -> bool:
    if one.is_local and other.is_local:
        return one.local_folder.resolve() == other.local_folder.resolve()
    return one.url.rstrip("/") == other.url.rstrip("/")


def source_of(folder: str | None, locations: Locations) -> Path:
    """The folder to import from; the data root where none is given.

    Raises:
        RequestError: there is no such folder, or the data root isn't one of this machine's.
    """
    root = locations.open_root()
    if folder is None and not root.is_local:
        raise InvalidParameterError(f"Give the folder to import; {root.url} is none of this machine's.")
    return source_folder(str(root.local_folder) if folder is None else folder)


def make_import_plan(request: ImportRequest | MergeRequest, locations: Locations) -> ImportPlan | tuple[MergePlan, ...]:
    """Resolves the request against source and registry, and checks it; writes nothing."""
    root = locations.open_root()
    check_writable(root)
    with registry_if_any(locations.database_url) as registry:
        if isinstance(request, MergeRequest):
            return plan_merge(request, _open_source(request.source, locations), root, registry, locations.trust())
        plan = plan_import(request, registry)
    check_locations(plan, locations.database_url)
    return plan


def import_all(request: ImportRequest | MergeRequest, runner: StepRunner, locations: Locations) -> Imported:
    """Imports by the runner's steps, see :func:`import_data`."""
    plan = make_import_plan(request, locations)
    if not isinstance(plan, ImportPlan):
        return _merge_all(request, plan, runner, locations)
    batches = _import_batches(plan, runner, locations)
    if any(batch.made or batch.existing for batch in batches):
        runner.do(register_environment, plan.environment, locations)
        runner.do(register_experiment, plan.experiment, plan.checkpoint_records(), locations, replace=False)
        runner.do(index_imported, plan, locations)
    labels, label_faults = runner.do(import_labels, plan, locations)
    return Imported(
        (plan.experiment.name,),
        _shown(locations),
        batches,
        labels,
        (*(line for batch in batches for line in batch.faults), *label_faults),
        (*plan.notes, *(line for batch in batches for line in batch.notes)),
    )


def _shown(locations: Locations) -> str:
    return locations.open_root().display_url()


def _merge_all(
    request: ImportRequest | MergeRequest, plans: Sequence[MergePlan], runner: StepRunner, locations: Locations
) -> Imported:
    batches: list[ImportedBatch] = []
    labels = 0
    for plan in plans:
        merged = _merge_batches(plan, runner, locations)
        batches += merged
        if any(batch.made or batch.existing for batch in merged):
            runner.do(register_environment, plan.environment, locations)
            runner.do(register_experiment, plan.experiment, plan.checkpoints, locations, replace=request.overwrite)
            runner.do(index_merged, plan, locations)
            labels += runner.do(merge_labels, plan, locations)
    return Imported(
        tuple(plan.experiment.name for plan in plans),
        _shown(locations),
        tuple(batches),
        labels,
        tuple(line for batch in batches for line in batch.faults),
        tuple(line for plan in plans for line in plan.notes),
    )


def _merge_batches(plan: MergePlan, runner: StepRunner, locations: Locations) -> tuple[ImportedBatch, ...]:
    origin = f"merged from {canonical_digest([merge.source for merge in plan.work[:1]])}"
    digests = {merge.key.checkpoint: origin for merge in plan.work}
    calls = (
        {"merge": merge, "numbers": numbers, "locations": locations}
        for merge in plan.work
        for numbers in batched(_numbers(merge, locations), _MERGED_AT_ONCE)
    )
    with _claiming(plan.experiment.name, digests, locations) as claims:
        each = ({**call, "claims": claims} for call in calls)
        return tuple(runner.do_each(merge_batch, each, concurrency_for(locations)))


def merge_batch(merge: Merge, numbers: Sequence[int], claims: RunClaims, locations: Locations) -> ImportedBatch:
    """Copies these episodes of a checkpoint of another data set, and publishes them."""
    source = _open_source(merge.source, locations)
    with _claimed(merge.key, numbers, claims, locations) as (left_over, staging, registry):
        merge = replace(merge, left_over=left_over)
        return merge_episodes(locations.open_root(), source, numbers, merge, staging, registry)


def merge_labels(plan: MergePlan, locations: Locations) -> int:
    """Stores the other data set's pictures of actions; returns how many."""
    source = _open_source(plan.work[0].source, locations)
    return store_labels(locations.open_root(), source, plan)


def _import_batches(plan: ImportPlan, runner: StepRunner, locations: Locations) -> tuple[ImportedBatch, ...]:
    # Two imports from one folder make the same bytes and may share the work; from two, files would mix.
    origin = f"imported from {canonical_digest([this_machine(), str(plan.folder.resolve())])}"
    digests = {target.key.checkpoint: origin for _, target in plan.work}
    calls = (
        {"source": source, "numbers": numbers, "target": target, "locations": locations}
        for source, target in plan.work
        for numbers in batched(source.numbers(), _BATCH)
    )
    with _claiming(plan.experiment.name, digests, locations) as claims:
        each = ({**call, "claims": claims} for call in calls)
        return tuple(runner.do_each(import_batch, each, available_cores()))


@contextlib.contextmanager
def _claiming(experiment: str, digests: Mapping[str, str], locations: Locations) -> Iterator[RunClaims]:
    """Claims of a run that makes an experiment's episodes, by what they are made from, while the context lasts."""
    url = locations.database_url
    open_registry(url).close()  # made on first use: claims come before files
    with open_run(locations.open_root()) as run, open_claims(url, run.folder, experiment, digests) as claims:
        yield claims


@contextlib.contextmanager
def _claimed(
    key: CheckpointKey, numbers: Sequence[int], claims: RunClaims, locations: Locations
) -> Iterator[tuple[frozenset[int], Path, Registry]]:
    """Which of the episodes dead runs had claimed, a folder for unfinished files, and the registry.

    What another run has claimed is made all the same: from one source comes the same.
    """
    claimed = claims.claim(key, numbers)
    with (
        open_run(locations.open_root()) as run,
        open_registry(locations.database_url, create=False, reached_before=True) as registry,
    ):
        yield claimed.taken_over, run.folder, registry
    claims.release(key, claimed.free)


def batched(numbers: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """The numbers in their order, some at a time."""
    for start in range(0, len(numbers), size):
        yield tuple(numbers[start : start + size])


def import_batch(
    source: SourceCheckpoint, numbers: Sequence[int], target: ImportTarget, claims: RunClaims, locations: Locations
) -> ImportedBatch:
    """Checks, converts and publishes these episodes of a checkpoint."""
    with _claimed(target.key, numbers, claims, locations) as (left_over, staging, registry):
        target = replace(target, left_over=left_over)
        return import_episodes(locations.open_root(), source, numbers, target, staging, registry)


def import_labels(plan: ImportPlan, locations: Locations) -> tuple[int, tuple[str, ...]]:
    """Stores the source's pictures of actions; returns how many, and what is wrong with others."""
    return import_action_labels(locations.open_root(), plan.folder)


def index_imported(plan: ImportPlan, locations: Locations) -> None:
    """Registers the published episodes."""
    _index(((target.key, source.numbers()) for source, target in plan.work), locations)


def index_merged(plan: MergePlan, locations: Locations) -> None:
    """Registers the published episodes."""
    _index(((merge.key, _numbers(merge, locations)) for merge in plan.work), locations)


def _numbers(merge: Merge, locations: Locations) -> list[int]:
    return episode_numbers(_open_source(merge.source, locations), merge.origin)


def _index(episodes: Iterable[tuple[CheckpointKey, Sequence[int]]], locations: Locations) -> None:
    """Some at a time: memory doesn't grow with their number."""
    root = locations.open_root()
    with open_registry(locations.database_url) as registry:
        for key, own in episodes:
            for numbers in batched(own, _INDEXED_AT_ONCE):
                manifests = _unindexed(root, registry, key, numbers)
                registry.record_episodes([episode_record(manifest) for manifest in manifests])


def _unindexed(root: DataRoot, registry: Registry, key: CheckpointKey, numbers: Sequence[int]) -> Iterator[Manifest]:
    """Those manifests that the registry's rows weren't made from; ascending numbers are given."""
    known = registry.list_figures(key.experiment, key.checkpoint, numbers[0], numbers[-1])
    paths = {manifest_path(EpisodeKey(key.experiment, key.checkpoint, number)): number for number in numbers}
    for path, content in read_many(root, paths).items():
        sha256, *_ = known.get(paths[path], (None,))
        if sha256 != hashlib.sha256(content).hexdigest():
            yield parse_manifest(content, path)
