"""Handing the data over: to RLHF-Blender's server, to Minari."""

from rlhfblender_core.export.ledger import locked
from rlhfblender_core.export.minari import MinariCheckpoint, export_minari_checkpoint, plan_minari_export
from rlhfblender_core.export.request import (
    CheckpointReport,
    ExperimentSource,
    ExportFormat,
    RewardsKind,
    find_experiments,
    open_target,
)
from rlhfblender_core.export.server import ServerExperiment, finish_server_export, left_behind, plan_server_export
from rlhfblender_core.export.server_episodes import ServerCheckpoint, export_checkpoint

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
