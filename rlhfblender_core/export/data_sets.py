"""Data sets in the forms of others, one per checkpoint: built aside, in their place once they are whole.

What a data set was made from is a digest over its episodes' manifests, kept in the export's own folder: where nothing
has changed, nothing is built. Episodes come one after the other; a build holds one of them in memory.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.selection import EpisodeSelection
from rlhfblender_core.errors import DataNotUsableError, InvalidParameterError
from rlhfblender_core.export.columns import EpisodeColumns, read_columns
from rlhfblender_core.export.index import FOLDER, read_json, staging_folder
from rlhfblender_core.export.request import CheckpointExport, ExperimentSource
from rlhfblender_core.export.source import CheckpointSource, complete_episodes
from rlhfblender_core.names import path_segment
from rlhfblender_core.reading.episode import Episode
from rlhfblender_core.registry import CheckpointRecord
from rlhfblender_core.storage import DataRoot, check_no_links, make_folder, publish_bytes, sync_tree

OTHER_ARRAYS = "has other arrays, dtypes or shapes than the checkpoint's first episode"


@dataclass(frozen=True)
class DataSetJob:
    """A checkpoint as a data set.

    Attributes:
        path: below the export: ``<environment>/<experiment>/<checkpoint>``, with the format's extension.
        source: its experiment.
        checkpoint: as registered.
    """

    path: str
    source: ExperimentSource
    checkpoint: CheckpointRecord

    @property
    def key(self) -> CheckpointKey:
        """Experiment and checkpoint, ours."""
        return CheckpointKey(self.checkpoint.experiment, self.checkpoint.label)


@dataclass(frozen=True)
class DataSetFormat:
    """How a data set is written.

    Attributes:
        name: as ``--to`` has it.
        recipe: raised when the same episodes would be another data set.
        extension: of a data set that is one file; ``""`` for a folder.
        modules: what has to be installed.
        writer: ``module:function`` that writes a build's data set to a place; imported when it is asked for, with the
            format's packages.
    """

    name: str
    recipe: int
    extension: str
    modules: tuple[str, ...]
    writer: str

    def write(self, build: "Build", place: Path) -> None:
        """Writes a build's data set."""
        module, _, function = self.writer.partition(":")
        getattr(import_module(module), function)(build, place)


@dataclass
class Build:
    """A data set that is being built.

    Attributes:
        job: which one.
        source: the checkpoint's episodes.
        scratch: folder for unfinished files, on the target's disk.
        left_out: episodes by the reason why they aren't in it; filled while they are read.
    """

    job: DataSetJob
    source: CheckpointSource
    scratch: Path
    left_out: Counter[str] = field(default_factory=Counter)

    def episodes(self) -> Iterator[Episode]:
        """The episodes, without their arrays; those that are damaged are left out."""
        for episode in complete_episodes(self.source, Counter()):
            yield Episode.from_manifest(episode.manifest, self.source.root)

    def columns(self) -> Iterator[EpisodeColumns]:
        """The episodes with their arrays, one after the other; those whose arrays differ in form are left out."""
        schema = None
        for episode in self.episodes():
            columns = read_columns(episode)
            schema = schema or columns.schema
            if columns.schema == schema:
                yield columns
            else:
                self.left_out[OTHER_ARRAYS] += 1


def plan_data_sets(form: DataSetFormat, sources: Sequence[ExperimentSource]) -> tuple[DataSetJob, ...]:
    """One data set per checkpoint; writes nothing.

    Raises:
        InvalidParameterError: a package is missing.
    """
    check_installed(form)
    return tuple(
        DataSetJob(
            f"{path_segment(source.record.env_id)}/{checkpoint.experiment}/{checkpoint.label}{form.extension}",
            source,
            checkpoint,
        )
        for source in sources
        for checkpoint in source.checkpoints
    )


def check_installed(form: DataSetFormat) -> None:
    """Makes sure that the format's packages are there.

    Raises:
        InvalidParameterError: one isn't.
    """
    try:
        for module in form.modules:
            import_module(module)
    except ImportError as error:
        install = f"pip install 'rlhfblender-data[{form.name}]'"
        raise InvalidParameterError(
            f"--to {form.name} needs a package that is missing. Install it: {install}."
        ) from error


def export_data_set(
    form: DataSetFormat, root: DataRoot, target: DataRoot, job: DataSetJob, selection: EpisodeSelection
) -> CheckpointExport:
    """Brings a checkpoint's data set up to date.

    Args:
        form: how it is written.
        root: the data root.
        target: folder of the data sets, locked by the caller.
        job: which one.
        selection: the episodes that it has.

    Raises:
        DataNotUsableError: what lies in its place isn't an export of ours, or an episode can't be read.
    """
    source = CheckpointSource(root, job.key, selection)
    left_out: Counter[str] = Counter()
    digest, count = _digest(form, source, left_out)
    if not count:
        return CheckpointExport(job.key, 0, 0, left_out=dict(left_out), place=job.path)
    place, record_path = target.local_folder / job.path, f"{FOLDER}/data_sets/{job.path}.json"
    check_no_links(target, [place])
    record = read_json(target, record_path)
    if place.exists() and not record:
        raise DataNotUsableError(f"{place} isn't an export of ours. Choose another folder.")
    is_new = record.get("source") != digest or not place.exists()
    if is_new:
        publish_bytes(target, record_path, b'{"source": null}\n')  # it is ours from here on
        with staging_folder(target) as staging:
            build = Build(job, source, staging)
            form.write(build, staging / "new")
            _put_in_place(staging / "new", place, staging / "old")
        record = {"source": digest, "left_out": dict(build.left_out)}
        publish_bytes(target, record_path, (json.dumps(record) + "\n").encode())
    left_out += Counter(record.get("left_out", {}))
    exported = count - sum(record.get("left_out", {}).values())
    return CheckpointExport(
        job.key, exported if is_new else 0, 0 if is_new else exported, left_out=dict(left_out), place=job.path
    )


def _digest(form: DataSetFormat, source: CheckpointSource, left_out: "Counter[str]") -> tuple[str, int]:
    """Of all that decides the data set's bytes, and how many episodes are whole."""
    digest, count = hashlib.sha256(f"{form.name} {form.recipe}".encode()), 0
    for episode in complete_episodes(source, left_out):
        digest.update(f"{episode.number} {episode.sha256}\n".encode())
        count += 1
    return digest.hexdigest(), count


def _put_in_place(new: Path, place: Path, old: Path) -> None:
    """Renames; an old data set goes with the staging folder."""
    sync_tree(new)
    make_folder(place.parent)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
