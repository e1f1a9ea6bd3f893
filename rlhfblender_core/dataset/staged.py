"""Episodes whose files lie complete in a run's folder and wait to be published."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rlhfblender_core.dataset.episode_writer import staged_path
from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey
from rlhfblender_core.dataset.manifests import Manifest


@dataclass(frozen=True)
class StagedEpisode:
    """An episode whose files lie in the run's folder.

    Attributes:
        manifest: its commit record, to be published last.
        folder: where its files are.
        kinds: which of them are published; None for all. The others exist, and are what the manifest says.
    """

    manifest: Manifest
    folder: Path
    kinds: frozenset[ArtifactKind] | None = None

    def files(self) -> dict[str, Path]:
        """Local file by the path below the data root where it belongs, of those that are published."""
        return {
            record.path: staged_path(self.folder, kind)
            for kind, record in self.manifest.artifacts.items()
            if self.kinds is None or kind in self.kinds
        }


@dataclass(frozen=True)
class StagedShard:
    """What came of a shard.

    Attributes:
        name: the shard's.
        key: experiment and checkpoint.
        episodes: those to publish.
        failures: message by number of those that the environment or the policy broke off.
        traces: where they did, as Python shows it, by number, where that is known.
        seconds: how long making them took.
        replace: whether they replace episodes that exist, which otherwise are only repaired.
        ours: numbers of those that a run had claimed which died: files of theirs without a manifest are ours.
        present: numbers of those in whose places something lay when the run was planned, or was left by a dead run.
        older_digests: by which older versions of this project knew the same request.
    """

    name: str
    key: CheckpointKey
    episodes: tuple[StagedEpisode, ...]
    failures: Mapping[int, str]
    traces: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    replace: bool = False
    ours: frozenset[int] = frozenset()
    present: frozenset[int] = frozenset()
    older_digests: frozenset[str] = frozenset()
