"""Other people's Stable-Baselines3 checkpoints: found, fetched, checked and loaded, without running what they hold.

Importing this package imports neither torch nor Stable-Baselines3; :func:`load_agent` does, when it is called.
"""

from rlhfblender_core.checkpoints.algorithms import Algorithm, parse_algorithm
from rlhfblender_core.checkpoints.fetch import CheckpointRef, StatisticsRef, fetch_checkpoint
from rlhfblender_core.checkpoints.find import CheckpointFile, Companions, find_checkpoints
from rlhfblender_core.checkpoints.load import load_agent
from rlhfblender_core.checkpoints.match import check_spaces, successor_hint
from rlhfblender_core.checkpoints.select import choose_checkpoints, parse_wanted, select_checkpoints
from rlhfblender_core.checkpoints.successors import as_trained

__all__ = [
    "Algorithm",
    "CheckpointFile",
    "CheckpointRef",
    "Companions",
    "StatisticsRef",
    "as_trained",
    "check_spaces",
    "choose_checkpoints",
    "fetch_checkpoint",
    "find_checkpoints",
    "load_agent",
    "parse_algorithm",
    "parse_wanted",
    "select_checkpoints",
    "successor_hint",
]
