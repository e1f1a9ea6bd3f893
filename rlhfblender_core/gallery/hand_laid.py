"""Episodes that somebody has laid into the data root by hand: not shown, as nothing says what they are, but named."""

from collections import Counter
from collections.abc import Mapping, Sequence
from shlex import quote

from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey
from rlhfblender_core.dataset.published import list_numbers
from rlhfblender_core.names import is_name
from rlhfblender_core.runs.folders import is_any_alive
from rlhfblender_core.storage import DataRoot, list_folders
from rlhfblender_core.wording import counted


def hand_laid_notes(
    root: DataRoot, experiments: Sequence[str], counts: Mapping[CheckpointKey, int] | None = None
) -> tuple[str, ...]:
    """A line for each experiment with such episodes, with the command that takes them in.

    Args:
        root: the data root.
        experiments: in which to look; none for all.
        counts: how many there are in checkpoints that have been listed already.
    """
    if root.is_local and is_any_alive(root):
        return ()  # they may be a run's that commits them in a moment
    counts = counts or {}
    found: Counter[str] = Counter()
    for name in experiments or list_folders(root, ArtifactKind.EPISODES):
        labels = list_folders(root, f"{ArtifactKind.EPISODES}/{name}") if is_name(name) else []
        for key in (CheckpointKey(name, label) for label in labels if is_name(label)):
            listed = counts.get(key)
            found[name] += len(list_numbers(root, ArtifactKind.EPISODES, key)) if listed is None else listed
    return tuple(
        f"{counted(number, 'episode')} of {name!r} without manifest not shown; "
        f"`python flows/import_data.py --exp {quote(name)} --env …` takes in what was laid there by hand"
        for name, number in sorted(found.items())
        if number
    )
