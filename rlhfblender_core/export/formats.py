"""The formats that episodes are exported to: one row each. A new format is one folder beside this file, and its row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from rlhfblender_core.dataset.selection import EVERYTHING, EpisodeSelection
from rlhfblender_core.export.data_sets import DataSetFormat, DataSetJob, export_data_set, plan_data_sets
from rlhfblender_core.export.minari.dataset import MinariCheckpoint, export_minari_checkpoint, plan_minari_export
from rlhfblender_core.export.request import CheckpointExport, ExperimentSource, RewardsKind
from rlhfblender_core.export.rlhfblender.episodes import ServerCheckpoint, export_server_checkpoint
from rlhfblender_core.export.rlhfblender.folder import (
    ServerExperiment,
    finish_server_export,
    left_behind,
    plan_server_export,
)
from rlhfblender_core.export.rlhfblender.states import StatesPlan
from rlhfblender_core.locations import Locations
from rlhfblender_core.registry import open_registry
from rlhfblender_core.storage import DataRoot

ExportFormat = Literal["rlhfblender", "minari", "hdf5", "datasets", "lerobot"]


@dataclass(frozen=True)
class ExportOptions:
    """What can be chosen of an export besides its format.

    Attributes:
        rewards: what RLHF-Blender's plots of rewards show.
        env_states: whether its demonstrations can start in the middle of episodes; None where that costs little.
        checkpoints: labels; none for all.
        selection: which of their episodes.
        push_to: repository on the Hugging Face Hub that the export goes to besides; None for none.
    """

    rewards: RewardsKind = "per-step"
    env_states: bool | None = None
    checkpoints: tuple[str, ...] = ()
    selection: EpisodeSelection = EVERYTHING
    push_to: str | None = None


#: A checkpoint with what its format needs to know; travels to tasks.
CheckpointJob = ServerCheckpoint | MinariCheckpoint | DataSetJob


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Attributes:
        check: refuses what can't be exported, and writes nothing.
        plan: what is to be done for each checkpoint; may note things down in the target.
        export: brings one checkpoint's episodes up to date, from a data root in a target.
        finish: writes what comes last; names experiments that lie in the target and aren't registered any more.
        advice: what to do with the export, in lines.
    """

    check: Callable[[Sequence[ExperimentSource], Locations], Any]
    plan: Callable[[Sequence[ExperimentSource], DataRoot, ExportOptions, Locations], Sequence[CheckpointJob]]
    export: Callable[[DataRoot, DataRoot, Any, EpisodeSelection], CheckpointExport]
    finish: Callable[[Sequence[ExperimentSource], DataRoot, ExportOptions, Locations], tuple[str, ...]]
    advice: Callable[[str, Sequence[CheckpointExport]], Sequence[str]]


def _plan_server(
    sources: Sequence[ExperimentSource], target: DataRoot, options: ExportOptions, locations: Locations
) -> list[CheckpointJob]:
    experiments = _server_experiments(sources, target, options, locations)
    return [checkpoint for experiment in experiments for checkpoint in experiment.checkpoints]


def _server_experiments(
    sources: Sequence[ExperimentSource], target: DataRoot, options: ExportOptions, locations: Locations
) -> tuple[ServerExperiment, ...]:
    states = StatesPlan(options.env_states, locations.trust())
    return plan_server_export(target, sources, options.rewards, states, locations.storage_options)


def _finish_server(
    sources: Sequence[ExperimentSource], target: DataRoot, options: ExportOptions, locations: Locations
) -> tuple[str, ...]:
    # Planned again: the numbers are known by now, and stay.
    experiments = _server_experiments(sources, target, options, locations)
    finish_server_export(locations.open_root(), target, experiments)
    with open_registry(locations.database_url, create=False) as registry:
        return left_behind(target, [record.name for record in registry.list_experiments()])


def _data_sets(form: DataSetFormat, advice: Callable[[str], str]) -> Format:
    """A format of data sets, one per checkpoint.

    Args:
        form: how one is written.
        advice: how one is loaded, given where it lies.
    """
    return Format(
        check=lambda sources, _locations: plan_data_sets(form, sources),
        plan=lambda sources, _target, _options, _locations: plan_data_sets(form, sources),
        export=partial(export_data_set, form),
        finish=lambda _sources, _target, _options, _locations: (),
        advice=lambda folder, reports: [
            "Load with:",
            *(f"  {advice(f'{folder}/{report.place}')}" for report in reports if report.made + report.existing),
        ],
    )


_HDF5 = DataSetFormat("hdf5", 2, ".hdf5", ("h5py",), "rlhfblender_core.export.hdf5.file:write_hdf5")
_DATASETS = DataSetFormat("datasets", 2, "", ("pyarrow",), "rlhfblender_core.export.datasets.files:write_datasets")
_LEROBOT = DataSetFormat("lerobot", 3, "", ("pyarrow",), "rlhfblender_core.export.lerobot.folder:write_lerobot")

FORMATS: Mapping[ExportFormat, Format] = {
    "rlhfblender": Format(
        check=lambda _sources, _locations: None,
        plan=_plan_server,
        export=export_server_checkpoint,
        finish=_finish_server,
        advice=lambda folder, _reports: [
            f"Start RLHF-Blender's server in {folder}: it reads data/ and rlhfblender.db there."
        ],
    ),
    "minari": Format(
        check=lambda sources, locations: plan_minari_export(sources, locations.trust()),
        plan=lambda sources, _target, _options, locations: plan_minari_export(sources, locations.trust()),
        export=export_minari_checkpoint,
        finish=lambda _sources, _target, _options, _locations: (),
        advice=lambda folder, reports: [
            f"Load with MINARI_DATASETS_PATH={folder}:",
            *(f'  minari.load_dataset("{report.place}")' for report in reports),
        ],
    ),
    "hdf5": _data_sets(_HDF5, lambda place: f'h5py.File("{place}")'),
    "datasets": _data_sets(_DATASETS, lambda place: f'datasets.load_dataset("{place}", split="train")'),
    "lerobot": _data_sets(_LEROBOT, lambda place: f'LeRobotDataset("local/export", root="{place}")'),
}
