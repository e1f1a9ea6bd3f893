"""Importing: every file of a source is checked, converted and published, then its experiment is registered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhfblender_core.dataset.manifests import canonical_digest
from rlhfblender_core.dataset.publish import episode_record
from rlhfblender_core.dataset.published import read_some
from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.import_data.episodes import ImportedBatch, ImportTarget, import_episodes
from rlhfblender_core.import_data.labels import import_action_labels
from rlhfblender_core.import_data.plan import ImportPlan, ImportRequest, check_locations, plan_import
from rlhfblender_core.import_data.sources import SourceCheckpoint, source_folder
from rlhfblender_core.locations import DEFAULT_DATA_ROOT, Locations, locate
from rlhfblender_core.registry import DEFAULT_PROJECT, open_registry, registry_if_any
from rlhfblender_core.runs.claims import RunClaims, open_claims, this_machine
from rlhfblender_core.runs.folders import open_run
from rlhfblender_core.step_runner import LocalRunner, StepRunner
from rlhfblender_core.steps import register_environment, register_experiment
from rlhfblender_core.storage import check_writable
from rlhfblender_core.wording import counted
from rlhfblender_core.workers.pool import available_cores

#: Episodes in one step: their videos are decoded, which takes a second or so each.
_BATCH = 8
#: Rows written in one transaction.
_INDEXED_AT_ONCE = 500


@dataclass(frozen=True)
class Imported:
    """What a run of import_data achieved.

    Attributes:
        experiment: its name.
        data_root: where everything is, as a person would use it.
        batches: what became of the episodes.
        labels: pictures of actions that were stored.
        faults: one line per thing that was not imported, naming the file.
        notes: one line per thing that was missing or left out.
    """

    experiment: str
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


def import_data(  # noqa: PLR0913 (one per flag)
    folder: str | None = None,
    *,
    exp: str,
    env: str,
    project: str = DEFAULT_PROJECT,
    source_exp: str | None = None,
    overwrite: bool = False,
    data_root: str = DEFAULT_DATA_ROOT,
    database_url: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Imported:
    """Imports episodes that were made elsewhere, without Prefect.

    Args:
        folder: with ``episodes/``, ``rewards/``, ``renders/`` …; it is only read. None for the data root itself, where
            somebody has laid files by hand.
        exp: experiment that the episodes become.
        env: Gymnasium id of their environment; it needn't be installed.
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
    request = ImportRequest(source_of(folder, locations), exp, env, project, source_exp, overwrite)
    return import_all(request, LocalRunner(), locations)


def source_of(folder: str | None, locations: Locations) -> Path:
    """The folder to import from; the data root where none is given.

    Raises:
        RequestError: there is no such folder, or the data root isn't one of this machine's.
    """
    root = locations.open_root()
    if folder is None and not root.is_local:
        raise InvalidParameterError(f"Give the folder to import; {root.url} is none of this machine's.")
    return source_folder(str(root.local_folder) if folder is None else folder)


def make_import_plan(request: ImportRequest, locations: Locations) -> ImportPlan:
    """Resolves the request against folder and registry, and checks it; writes nothing."""
    check_writable(locations.open_root())
    with registry_if_any(locations.database_url) as registry:
        plan = plan_import(request, registry)
    check_locations(plan, locations.database_url)
    return plan


def import_all(request: ImportRequest, runner: StepRunner, locations: Locations) -> Imported:
    """Imports by the runner's steps, see :func:`import_data`."""
    plan = make_import_plan(request, locations)
    batches = _import_batches(plan, runner, locations)
    if any(batch.made or batch.existing for batch in batches):
        runner.do(register_environment, plan.environment, locations)
        runner.do(register_experiment, plan.experiment, plan.checkpoint_records(), locations, replace=False)
        runner.do(index_imported, plan, locations)
    labels, label_faults = runner.do(import_labels, plan, locations)
    return Imported(
        plan.experiment.name,
        locations.open_root().display_url("").rstrip("/"),
        batches,
        labels,
        (*(line for batch in batches for line in batch.faults), *label_faults),
        (*plan.notes, *(line for batch in batches for line in batch.notes)),
    )


def _import_batches(plan: ImportPlan, runner: StepRunner, locations: Locations) -> tuple[ImportedBatch, ...]:
    url, experiment = locations.database_url, plan.experiment.name
    open_registry(url).close()  # made on first use: claims come before files
    # Two imports from one folder make the same bytes and may share the work; from two, files would mix.
    origin = f"imported from {canonical_digest([this_machine(), str(plan.folder.resolve())])}"
    digests = {target.key.checkpoint: origin for _, target in plan.work}
    with open_run(locations.open_root()) as run, open_claims(url, run.folder, experiment, digests) as claims:
        calls = (
            {"source": source, "numbers": numbers, "target": target, "claims": claims, "locations": locations}
            for source, target in plan.work
            for numbers in batched(source.numbers(), _BATCH)
        )
        return tuple(runner.do_each(import_batch, calls, available_cores()))


def batched(numbers: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """The numbers in their order, some at a time."""
    for start in range(0, len(numbers), size):
        yield tuple(numbers[start : start + size])


def import_batch(
    source: SourceCheckpoint, numbers: Sequence[int], target: ImportTarget, claims: RunClaims, locations: Locations
) -> ImportedBatch:
    """Checks, converts and publishes these episodes of a checkpoint."""
    root = locations.open_root()
    # What another import has claimed is converted all the same: from one source comes the same.
    claimed = claims.claim(target.key, numbers)
    target = replace(target, left_over=claimed.taken_over)
    with (
        open_run(root) as run,
        open_registry(locations.database_url, create=False, reached_before=True) as registry,
    ):
        batch = import_episodes(root, source, numbers, target, run.folder, registry)
    claims.release(target.key, claimed.free)
    return batch


def import_labels(plan: ImportPlan, locations: Locations) -> tuple[int, tuple[str, ...]]:
    """Stores the source's pictures of actions; returns how many, and what is wrong with others."""
    return import_action_labels(locations.open_root(), plan.folder)


def index_imported(plan: ImportPlan, locations: Locations) -> None:
    """Registers the published episodes, some at a time: memory doesn't grow with their number."""
    root = locations.open_root()
    with open_registry(locations.database_url) as registry:
        for source, target in plan.work:
            for numbers in batched(source.numbers(), _INDEXED_AT_ONCE):
                manifests = read_some(root, target.key, numbers).manifests.values()
                registry.record_episodes([episode_record(manifest) for manifest in manifests])
