"""Episodes that somebody has laid into the data root by hand: not shown, as nothing says what they are, but named."""

from collections import Counter
from collections.abc import Iterable, Sequence
from shlex import quote

from rlhfblender_core.dataset.layout import ArtifactKind, CheckpointKey
from rlhfblender_core.dataset.published import Published, list_numbers
from rlhfblender_core.names import is_name
from rlhfblender_core.runs.folders import is_any_alive
from rlhfblender_core.storage import DataRoot, list_folders
from rlhfblender_core.wording import counted


def hand_laid_notes(root: DataRoot, experiments: Sequence[str], shown: Iterable[Published] = ()) -> tuple[str, ...]:
    """A line for each experiment with such episodes, with the command that takes them in.

    Args:
        root: the data root.
        experiments: in which to look; none for all.
        shown: checkpoints that have been listed already.
    """
    if root.is_local and is_any_alive(root):
        return ()  # they may be a run's that commits them in a moment
    listed = {published.key: published for published in shown}
    found: Counter[str] = Counter()
    for name in experiments or list_folders(root, ArtifactKind.EPISODES):
        labels = list_folders(root, f"{ArtifactKind.EPISODES}/{name}") if is_name(name) else []
        for key in (CheckpointKey(name, label) for label in labels if is_name(label)):
            published = listed.get(key)
            if published is None:
                found[name] += len(list_numbers(root, ArtifactKind.EPISODES, key))
            else:
                found[name] += len(published.sizes[ArtifactKind.EPISODES].keys() - published.manifests.keys())
    return tuple(
        f"{counted(number, 'episode')} of {name!r} without manifest not shown; "
        f"`python flows/import_data.py --exp {quote(name)} --env …` takes in what was laid there by hand"
        for name, number in sorted(found.items())
        if number
    )
