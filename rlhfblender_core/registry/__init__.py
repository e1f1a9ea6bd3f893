"""The registry: the SQL database of projects, environments, experiments, checkpoints and episodes.

SQLite by default, PostgreSQL by URL. Its episode rows are an index; the manifests in the data root are the truth.
"""

from rlhfblender_core.registry.conflicts import (
    environment_conflict,
    experiment_conflict,
    lacks_origin,
    name_conflict,
)
from rlhfblender_core.registry.engine import has_password, registry_location
from rlhfblender_core.registry.opening import open_existing_registry, open_registry, registry_if_any
from rlhfblender_core.registry.records import (
    DEFAULT_PROJECT,
    CheckpointRecord,
    Claimed,
    EnvironmentRecord,
    EpisodeRecord,
    ExperimentKind,
    ExperimentRecord,
    Following,
    JsonDict,
    ProjectRecord,
    ReturnSummary,
    RunRecord,
)
from rlhfblender_core.registry.store import Registry

__all__ = [
    "DEFAULT_PROJECT",
    "CheckpointRecord",
    "Claimed",
    "EnvironmentRecord",
    "EpisodeRecord",
    "ExperimentKind",
    "ExperimentRecord",
    "Following",
    "JsonDict",
    "ProjectRecord",
    "Registry",
    "ReturnSummary",
    "RunRecord",
    "environment_conflict",
    "experiment_conflict",
    "has_password",
    "lacks_origin",
    "name_conflict",
    "open_existing_registry",
    "open_registry",
    "registry_if_any",
    "registry_location",
]
