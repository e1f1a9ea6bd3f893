"""A data set made without Prefect, and its export to RLHF-Blender: the same core functions as the flows call."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rlhfblender_core.dataset.layout import ArtifactKind, EpisodeKey, artifact_path
from rlhfblender_core.dataset.selection import parse_selection
from rlhfblender_core.export.formats import ExportOptions
from rlhfblender_core.export.request import CheckpointExport
from rlhfblender_core.export.run import export_all
from rlhfblender_core.planning.request import request_from_flags
from rlhfblender_core.step_runner import LocalRunner
from rlhfblender_core.storage import DataRoot
from tests.support.generating import generate, locations_of

COUNTING = "tests.support.environments_for_tests.counting"


@dataclass
class DataSet:
    """A data root and its registry, filled as the flow would."""

    root: DataRoot
    url: str
    scratch: Path
    made: list[str] = field(default_factory=list)

    def generate(self, **request: Any) -> None:
        """Makes episodes."""
        generate(self.root, self.url, request_from_flags(request))

    def counting(self, exp: str = "E", env: str = "Counting", episodes: int = 2, **request: Any) -> None:
        """Random episodes of one of tests.support.environments_for_tests."""
        kwargs = {"env_id": f"{env}Made-v0", **request}
        self.generate(
            env=kwargs.pop("env_id"),
            exp=exp,
            random=True,
            num_episodes=episodes,
            env_gym_entrypoint=f"{COUNTING}:{env}",
            **kwargs,
        )

    def export(
        self,
        out: Path,
        experiments: Sequence[str] = (),
        rewards: Any = "per-step",
        env_states: bool | None = None,
        *,
        to: Any = "rlhfblender",
        checkpoints: Sequence[str] = (),
        episodes: str | None = None,
        where: str | None = None,
        push_to: str | None = None,
    ) -> list[CheckpointExport]:
        """Exports to RLHF-Blender's layout or another, as the flow would."""
        locations = locations_of(self.root, self.url)
        options = ExportOptions(rewards, env_states, tuple(checkpoints), parse_selection(episodes, where), push_to)
        return list(export_all(str(out), to, experiments, options, LocalRunner(), locations).checkpoints)

    def arrays(self, experiment: str, checkpoint: str, number: int) -> dict[str, Any]:
        """An episode's own arrays, and its uncertainty."""
        key = EpisodeKey(experiment, checkpoint, number)
        with np.load(self.root.full_path(artifact_path(ArtifactKind.EPISODES, key)), allow_pickle=False) as arrays:
            found = dict(arrays)
        path = artifact_path(ArtifactKind.UNCERTAINTY, key)
        return found | {"uncertainty": np.load(self.root.full_path(path), allow_pickle=False)}
