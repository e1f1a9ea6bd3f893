"""How runs that overlap share their work: by the notices that each keeps beside its lock or marker.

A run takes what it makes in hand and leaves alone what others have in hand, until that is published or they are dead.
What is done twice all the same (two that don't see each other's notice) has the same bytes.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import InvalidParameterError, RLHFBlenderError
from rlhfblender_core.runs.folders import Run, live_runs, read_notices
from rlhfblender_core.storage import DataRoot

#: Seconds after which a silent run on object storage isn't waited for; what lies there is kept for longer.
SILENT_S = 90.0


@dataclass(frozen=True)
class Making:
    """What a run makes.

    Attributes:
        experiment: whose episodes.
        digests: of the requests, by checkpoint.
    """

    experiment: str
    digests: Mapping[str, str]


#: In the place of a digest: the episodes are being deleted.
DELETED = "deleted"


@contextlib.contextmanager
def taken_in_hand(
    root: DataRoot, run: Run, key: CheckpointKey, episodes: Collection[int], *, leave: bool
) -> Iterator[tuple[int, ...]]:
    """Tells other runs that this one makes the episodes while the context lasts, and gives those that it shall make.

    Two that take the same at the same moment see each other, and neither gets it: it is left for later.

    Args:
        root: the data root.
        run: this run.
        key: experiment and checkpoint.
        episodes: numbers, ascending.
        leave: whether to leave out those that other live runs have in hand.
    """
    run.notice.take(key.checkpoint, episodes)
    mine = tuple(episodes)
    try:
        others = in_hand_of_others(root, key, episodes, run) if leave else frozenset()
        if others:
            mine = tuple(episode for episode in episodes if episode not in others)
            run.notice.drop(key.checkpoint, others)
        yield mine
    finally:
        with contextlib.suppress(RLHFBlenderError):  # what was made is made, and a dead run's notice counts for nothing
            run.notice.drop(key.checkpoint, mine)


def in_hand_of_others(
    root: DataRoot, key: CheckpointKey, episodes: Collection[int], run: Run | None = None
) -> frozenset[int]:
    """Those among the episodes that another live run has in hand.

    Args:
        root: the data root.
        key: experiment and checkpoint.
        episodes: numbers.
        run: this run, None for one without a folder of its own.
    """
    held = {
        name: both
        for name, notice in read_notices(root, key.experiment, run).items()
        if (both := frozenset(episodes).intersection(notice.in_hand.get(key.checkpoint, ())))
    }
    if not held:  # nobody needs to be asked whether it is alive
        return frozenset()
    alive = live_runs(root, key.experiment, silent_for=SILENT_S)
    return frozenset().union(*(held[name] for name in alive if name in held))


def check_same_settings(root: DataRoot, making: Making, run: Run | None = None) -> None:
    """Makes sure that no live run makes other episodes in the same places.

    Args:
        root: the data root.
        making: what this run makes.
        run: this run, None for one without a folder of its own.

    Raises:
        InvalidParameterError: one does.
    """
    differing = {
        name: checkpoint
        for name, notice in read_notices(root, making.experiment, run).items()
        for checkpoint, digest in making.digests.items()
        if notice.making.get(checkpoint, digest) != digest
    }
    alive = [name for name in live_runs(root, making.experiment) if name in differing] if differing else []
    if alive:
        raise InvalidParameterError(
            f"Another run is at work on experiment {making.experiment!r} at {differing[alive[0]]}, with other settings "
            "or to delete it. Wait for it, or stop it first."
        )
