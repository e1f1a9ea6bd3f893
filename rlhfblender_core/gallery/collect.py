"""What the gallery shows, read from the manifests: experiments, their checkpoints, their episodes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rlhfblender_core.dataset.layout import MANIFESTS, RANDOM, ArtifactKind, CheckpointKey
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.dataset.published import Published, read_published
from rlhfblender_core.errors import DataNotUsableError
from rlhfblender_core.gallery.curves import EpisodeCurves, read_curves
from rlhfblender_core.gallery.escape import JsonValue, link
from rlhfblender_core.gallery.hand_laid import hand_laid_notes
from rlhfblender_core.storage import DataRoot, list_folders, read_many

#: Episodes whose curves are in memory at the same time.
_BATCH = 64


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has episodes.

    Attributes:
        published: its manifests and files, at least one.
    """

    published: Published

    @property
    def key(self) -> CheckpointKey:
        """Experiment and label."""
        return self.published.key

    @property
    def manifests(self) -> list[Manifest]:
        """Of its episodes, by number."""
        return [self.published.manifests[number] for number in sorted(self.published.manifests)]

    @property
    def first(self) -> Manifest:
        """The first episode's manifest, for what all of them share."""
        return self.manifests[0]

    def has_file(self, kind: ArtifactKind, manifest: Manifest) -> bool:
        """Whether the episode's file of that kind belongs to it and is there."""
        return kind in manifest.artifacts and manifest.episode in self.published.sizes[kind]


def find_experiments(root: DataRoot, wanted: Sequence[str]) -> list[str]:
    """The experiments that have episodes, by name; those that are wanted, or all for none.

    Raises:
        DataNotUsableError: one that is wanted has no episodes, or there are none at all.
    """
    there = list_folders(root, MANIFESTS)
    missing = [name for name in wanted if name not in there]
    notes = hand_laid_notes(root, missing) if missing or not there else ()
    if notes:
        raise DataNotUsableError(f"{root.display_url('').rstrip('/')}: {notes[0]}.")
    if missing:
        known = f"There are: {', '.join(there[:10])}." if there else "There are none at all; run generate.py first."
        raise DataNotUsableError(
            f"{root.display_url('').rstrip('/')} has no episodes of experiment {missing[0]!r}. {known}"
        )
    if not there:
        raise DataNotUsableError(
            f"{root.display_url('').rstrip('/')} has no episodes. Run generate.py first, or give another --data-root."
        )
    return sorted(set(wanted) or there)


def find_checkpoints(root: DataRoot, experiment: str) -> Iterator[Checkpoint]:
    """The experiment's checkpoints that have episodes: random first, then by step, then by label."""
    found = [
        Checkpoint(published)
        for label in list_folders(root, f"{MANIFESTS}/{experiment}")
        if (published := read_published(root, CheckpointKey(experiment, label))).manifests
    ]
    yield from sorted(found, key=_order)


def _order(checkpoint: Checkpoint) -> tuple[int, int, str]:
    label, step = checkpoint.key.checkpoint, checkpoint.first.step
    if label == RANDOM:
        return 0, 0, label
    return (1, step, label) if step is not None else (2, 0, label)


def each_curves(root: DataRoot, checkpoint: Checkpoint) -> Iterator[tuple[Manifest, EpisodeCurves]]:
    """Every episode of the checkpoint with its curves, by number."""
    manifests = checkpoint.manifests
    for start in range(0, len(manifests), _BATCH):
        batch = manifests[start : start + _BATCH]
        files = read_many(root, [path for manifest in batch for path in _curve_paths(manifest)])
        for manifest in batch:
            yield manifest, read_curves(files, *_curve_paths(manifest), manifest.episode_length)


def _curve_paths(manifest: Manifest) -> tuple[str, str]:
    kinds = (ArtifactKind.REWARDS, ArtifactKind.UNCERTAINTY)
    rewards, uncertainty = (manifest.artifacts[kind].path if kind in manifest.artifacts else "" for kind in kinds)
    return rewards, uncertainty


def episode_json(checkpoint: Checkpoint, manifest: Manifest, chunk: int, sparkline: str) -> JsonValue:
    """An episode's row in its checkpoint's script."""
    return {
        "n": manifest.episode,
        "return": number(manifest.episode_return),
        "length": manifest.episode_length,
        "ended": "terminated" if manifest.terminated else ("truncated" if manifest.truncated else "open"),
        "seed": str(manifest.seed) if manifest.seed is not None else None,
        "fps": number(manifest.fps),
        "video": _link(checkpoint, ArtifactKind.RENDERS, manifest),
        "lost": ArtifactKind.RENDERS in manifest.artifacts and not checkpoint.has_file(ArtifactKind.RENDERS, manifest),
        "thumbnail": _link(checkpoint, ArtifactKind.THUMBNAILS, manifest),
        "arrays": _link(checkpoint, ArtifactKind.EPISODES, manifest),
        "warnings": list(manifest.warnings),
        "chunk": chunk,
        "spark": sparkline,
    }


def _link(checkpoint: Checkpoint, kind: ArtifactKind, manifest: Manifest) -> str | None:
    return link(manifest.artifacts[kind].path) if checkpoint.has_file(kind, manifest) else None


def summary_json(checkpoint: Checkpoint, script: str) -> JsonValue:
    """A checkpoint as the page's own script knows it before its episodes are loaded."""
    manifests = checkpoint.manifests
    returns = np.array([manifest.episode_return for manifest in manifests if math.isfinite(manifest.episode_return)])
    lengths = np.array([manifest.episode_length for manifest in manifests])
    first = checkpoint.first
    return {
        "label": checkpoint.key.checkpoint,
        "step": first.step,
        "episodes": len(manifests),
        "returns": [number(value) for value in np.quantile(returns, _QUANTILES)] if returns.size else None,
        "mean": number(returns.mean()) if returns.size else None,
        "std": number(returns.std()) if returns.size else None,
        "meanLength": number(lengths.mean()),
        "uncertainty": first.uncertainty_kind,
        "agent": agent_text(first),
        "width": first.frame_width,
        "height": first.frame_height,
        "script": script,
    }


#: Lowest, tenth, quarter, median, three quarters, nine tenths, highest.
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def agent_text(manifest: Manifest) -> str:
    """Who acted, in words."""
    policy = manifest.policy
    if policy.kind == RANDOM:
        return "random actions"
    name = policy.algorithm or ("imported" if policy.kind == "imported" else "trained policy")
    return f"{name}, deterministic" if policy.deterministic else name


def number(value: object) -> float | None:
    """A finite number as JSON has it; None for what JSON has no form for."""
    if not isinstance(value, int | float | np.number) or not math.isfinite(value):
        return None
    return float(value)
