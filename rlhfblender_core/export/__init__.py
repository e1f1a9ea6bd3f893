"""Handing the data over: to RLHF-Blender's server, to Minari."""

from rlhfblender_core.export.index import locked
from rlhfblender_core.export.minari.dataset import MinariCheckpoint, export_minari_checkpoint, plan_minari_export
from rlhfblender_core.export.request import (
    CheckpointReport,
    ExperimentSource,
    ExportFormat,
    RewardsKind,
    find_experiments,
    open_target,
)
from rlhfblender_core.export.rlhfblender.episodes import ServerCheckpoint, export_checkpoint
from rlhfblender_core.export.rlhfblender.folder import (
    ServerExperiment,
    finish_server_export,
    left_behind,
    plan_server_export,
)

__all__ = [
    "CheckpointReport",
    "ExperimentSource",
    "ExportFormat",
    "MinariCheckpoint",
    "RewardsKind",
    "ServerCheckpoint",
    "ServerExperiment",
    "export_checkpoint",
    "export_minari_checkpoint",
    "find_experiments",
    "finish_server_export",
    "left_behind",
    "locked",
    "open_target",
    "plan_minari_export",
    "plan_server_export",
]
