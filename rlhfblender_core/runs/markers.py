"""Markers of live runs on object storage, where no lock dies with its process.

A run writes one small object below ``.runs/<experiment>/``, which holds its notice, and writes it again every
:data:`HEARTBEAT_S`. One that is older than :data:`EXPIRY_S`, by the storage's own clock, belongs to a run that is dead.
Clocks of machines don't matter.
"""

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from rlhfblender_core.dataset.layout import RUNS
from rlhfblender_core.errors import RLHFBlenderError
from rlhfblender_core.runs.notices import OwnNotice
from rlhfblender_core.storage import (
    DataRoot,
    list_sizes,
    modified_at,
    modified_times,
    publish_bytes,
    read_many,
    remove_files,
)

HEARTBEAT_S = 30.0
EXPIRY_S = 300.0
_CLOCK = "clock"


def marker_path(experiment: str, name: str) -> str:
    """Where the marker of a run lies."""
    return f"{RUNS}/{experiment}/{name}"


@contextlib.contextmanager
def keep_marker(root: DataRoot, experiment: str | None, name: str, notice: OwnNotice) -> Iterator[None]:
    """Has the run known as alive while the context lasts; nothing on local roots, whose runs have locks."""
    if root.is_local or experiment is None:
        yield
        return
    notice.repeat()  # also tells, before anything is made, whether the bucket can be written
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(notice, stop), name="run-marker", daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        with contextlib.suppress(RLHFBlenderError):  # it expires by itself
            remove_files(root, [marker_path(experiment, name)])


def _beat(notice: OwnNotice, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        with contextlib.suppress(RLHFBlenderError):  # the next one may get through
            notice.repeat()


def read_markers(root: DataRoot, experiment: str, own: str | None) -> dict[str, bytes]:
    """What other runs' markers hold that hold something, by the run's name; one listing where none does."""
    sizes = list_sizes(root, f"{RUNS}/{experiment}")
    paths = {marker_path(experiment, name): name for name, size in sizes.items() if size and name != own}
    return {paths[path]: content for path, content in read_many(root, paths).items()}


def live_markers(root: DataRoot, experiment: str, silent_for: float) -> list[str]:
    """Names of the runs whose markers are fresh, those that started first first; expired markers are removed."""
    folder = f"{RUNS}/{experiment}"
    names = [name for name in sorted(list_sizes(root, folder)) if name != _CLOCK]
    if not names:
        return []
    now = storage_now(root, folder)
    times = modified_times(root, [f"{folder}/{name}" for name in names])  # without those that ended meanwhile
    remove_files(root, [path for path, moment in times.items() if now - moment >= timedelta(seconds=EXPIRY_S)])
    limit = timedelta(seconds=min(silent_for, EXPIRY_S))
    return [path.rpartition("/")[2] for path, moment in times.items() if now - moment < limit]


def storage_now(root: DataRoot, folder: str) -> datetime:
    """The storage's own time: that of an object written just now."""
    path = f"{folder}/{_CLOCK}"
    publish_bytes(root, path, b"")
    try:
        return modified_at(root, path)
    except FileNotFoundError:  # another run asked at the same moment and has removed it
        return datetime.now(UTC)
    finally:
        remove_files(root, [path])
