"""What the page knows of a checkpoint before it loads its episodes: figures of the learning curve, names of pieces."""

import numpy as np
from numpy.typing import NDArray

from rlhfblender_core.dataset.layout import RANDOM
from rlhfblender_core.dataset.manifests import Manifest
from rlhfblender_core.gallery.collect import Checkpoint
from rlhfblender_core.gallery.escape import JsonValue, number

#: Lowest, tenth, quarter, median, three quarters, nine tenths, highest.
_QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def summary_json(
    checkpoint: Checkpoint, returns: NDArray[np.float64], lengths: NDArray[np.int64], pieces: list[JsonValue]
) -> JsonValue:
    """A checkpoint's summary.

    Args:
        checkpoint: with its first manifest.
        returns: of all its episodes, float64 (N,).
        lengths: likewise, int64 (N,).
        pieces: name, first number, and number of episodes of each of its pieces, in order.
    """
    finite = returns[np.isfinite(returns)]
    first = checkpoint.first
    return {
        "label": checkpoint.key.checkpoint,
        "step": first.step,
        "episodes": int(lengths.size),
        "returns": [number(value) for value in np.quantile(finite, _QUANTILES)] if finite.size else None,
        "mean": number(finite.mean()) if finite.size else None,
        "std": number(finite.std()) if finite.size else None,
        "lengths": [int(lengths.min()), number(lengths.mean()), int(lengths.max())],
        "uncertainty": first.uncertainty_kind,
        "agent": agent_text(first),
        "width": first.frame_width,
        "height": first.frame_height,
        "actions": list(first.action_names) if first.action_names else None,
        "pieces": pieces,
    }


def agent_text(manifest: Manifest) -> str:
    """Who acted, in words."""
    policy = manifest.policy
    if policy.kind == RANDOM:
        return "random actions"
    name = policy.algorithm or ("imported" if policy.kind == "imported" else "trained policy")
    return f"{name}, deterministic" if policy.deterministic else name
