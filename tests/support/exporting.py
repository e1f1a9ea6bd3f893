"""A data set made without Prefect, and its export to RLHF-Blender: the same core functions as the flows call."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.dataset.publish import index_published, publish_shard
from rlhfblender_core.dataset.published import read_published
from rlhfblender_core.export import (
    CheckpointExport,
    export_checkpoint,
    find_experiments,
    finish_server_export,
    locked,
    open_target,
    plan_server_export,
)
from rlhfblender_core.planning.plan import plan_generation
from rlhfblender_core.planning.request import request_from_flags
from rlhfblender_core.registry import CheckpointRecord, open_existing_registry, open_registry
from rlhfblender_core.rollout.shards import Shard, close_session, roll_out_shard
from rlhfblender_core.storage import DataRoot

COUNTING = "tests.support.environments_for_tests.counting"


@dataclass
class DataSet:
    """A data root and its registry, filled as the flow would."""

    root: DataRoot
    url: str
    scratch: Path
    made: list[str] = field(default_factory=list)

    def generate(self, **request: Any) -> None:
        """Plans, registers, rolls out and publishes."""
        existing = open_existing_registry(self.url)
        plan = plan_generation(request_from_flags(request), existing, self.scratch / "cache")
        if existing is not None:
            existing.close()
        assert plan.experiment is not None
        name = plan.experiment.name
        with open_registry(self.url) as registry:
            registry.ensure_environment(plan.environment)
            registry.ensure_experiment(plan.experiment, replace_settings=plan.replace)
            for settings in plan.settings:
                agent = settings.agent
                registry.ensure_checkpoint(
                    CheckpointRecord(
                        experiment=name,
                        label=agent.label,
                        step=agent.step,
                        algorithm=agent.algorithm,
                        sha256=agent.sha256,
                    )
                )
                key = CheckpointKey(name, settings.label)
                published = read_published(self.root, key)
                wanted = range(plan.num_episodes)
                missing = tuple(wanted) if plan.replace else published.missing(wanted)
                with tempfile.TemporaryDirectory(dir=self.scratch) as staging:
                    staged = roll_out_shard(Shard(key, settings, missing), Path(staging))
                    publish_shard(self.root, staged)
                index_published(self.root, registry, published)
        close_session()

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
        self, out: Path, experiments: Sequence[str] | None = None, rewards: Any = "per-step"
    ) -> list[CheckpointExport]:
        """Exports to RLHF-Blender's layout, as the flow would."""
        target = open_target(str(out), self.root)
        with open_registry(self.url) as registry:
            sources = find_experiments(self.root, registry, experiments)
        with locked(target):
            planned = plan_server_export(target, sources, rewards)
            reports = [export_checkpoint(self.root, target, cp) for exp in planned for cp in exp.checkpoints]
            finish_server_export(self.root, target, planned)
        return reports
