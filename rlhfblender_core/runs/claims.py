"""Which episodes a run makes, as runs on one registry know of each other: claims, taken in one transaction each.

A run has a row in the registry and gives it a heartbeat. It is dead when it has been silent for :data:`EXPIRY_S` by the
database's own clock, or at once when it ran on this machine and the lock of its folder can be had. Claims of a run that
is dead are taken over; until then they say that what lies in the places of those episodes without a manifest is ours.

A run that was silent for too long, and is alive all the same, goes on: its heartbeat enters it again, and what two runs
make of one request has the same bytes. Runs whose registries differ don't see each other.
"""

import contextlib
import functools
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import RLHFBlenderError
from rlhfblender_core.registry import Claimed, Registry, RunRecord, open_registry
from rlhfblender_core.runs.folders import is_alive

HEARTBEAT_S = 20.0
#: Three heartbeats and a retry of the database's; below the 90 s after which a dead run must be out of the way.
EXPIRY_S = 75.0

#: In the place of a digest: the episodes are being deleted.
DELETED = "deleted"


@dataclass(frozen=True)
class RunClaims:
    """By which a run, or a task of it on any machine, claims episodes; small and picklable.

    Attributes:
        database_url: the registry's.
        run_id: the run's.
    """

    database_url: str
    run_id: str

    def claim(self, key: CheckpointKey, numbers: Iterable[int]) -> Claimed:
        """Claims the episodes and returns those that were free; may be repeated.

        Raises:
            RegistryUnavailableError: the registry can't be reached; worth another try.
        """
        with self._open() as registry:
            return registry.claim(self.run_id, key.experiment, key.checkpoint, numbers, is_dead)

    def release(self, key: CheckpointKey, numbers: Iterable[int]) -> None:
        """Releases the episodes, which are published now or of which nothing was moved into place; may be repeated.

        Raises:
            RegistryUnavailableError: the registry can't be reached; worth another try.
        """
        with self._open() as registry:
            registry.release(self.run_id, key.experiment, key.checkpoint, numbers)

    def held_by_others(self, experiment: str) -> dict[str, frozenset[int]]:
        """Numbers of the episodes that other live runs have claimed, by checkpoint.

        Raises:
            RegistryUnavailableError: the registry can't be reached; worth another try.
        """
        with self._open() as registry:
            return held_by_others(registry, experiment, self.run_id)

    def _open(self) -> Registry:
        return _open(self.database_url)


@contextlib.contextmanager
def open_claims(
    database_url: str, folder: Path | None, experiment: str, digests: Mapping[str, str]
) -> Iterator[RunClaims]:
    """Enters a run, which other runs see as alive while the context lasts.

    In the end it leaves. What it hasn't released by then counts as a dead run's: free for others, and known as ours.

    Args:
        database_url: the registry's, which exists.
        folder: the run's own, with its lock (:func:`rlhfblender_core.runs.folders.open_run`); its name becomes the
            run's id. None for a run without one, of which only the heartbeat tells.
        experiment: whose episodes it makes.
        digests: of the requests, by checkpoint; :data:`DELETED` where it deletes them.

    Raises:
        InvalidParameterError: a live run makes the same experiment and checkpoint with another digest.
        RegistryUnavailableError: the registry can't be reached; worth another try.
    """
    run = RunRecord(
        id=folder.name if folder else _new_id(),
        experiment=experiment,
        digests=dict(digests),
        machine=this_machine(),
        staging=str(folder.absolute()) if folder else None,
    )
    with _open(database_url) as registry:
        registry.enter_run(run, is_dead)
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(database_url, run, stop), name="run-heartbeat", daemon=True)
    heart.start()
    try:
        yield RunClaims(database_url, run.id)
    finally:
        stop.set()
        heart.join()  # else its last beat could enter the run again after it has left
        with contextlib.suppress(RLHFBlenderError), _open(database_url) as registry:  # it expires by itself
            registry.leave_run(run.id, experiment)


def _beat(database_url: str, run: RunRecord, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        # The next one may get through. The connection isn't kept: it would lie on the database's disk between beats.
        with contextlib.suppress(RLHFBlenderError), _open(database_url) as registry:
            registry.beat(run)


def live_runs(registry: Registry, experiment: str) -> list[RunRecord]:
    """The runs under way on the experiment, those that started first first."""
    return [run for run in registry.list_runs(experiment) if not is_dead(run)]


def held_by_others(registry: Registry, experiment: str, run_id: str | None = None) -> dict[str, frozenset[int]]:
    """Numbers of the episodes that live runs have claimed, by checkpoint.

    Args:
        registry: where they are entered.
        experiment: the experiment's name.
        run_id: this run, which doesn't count.
    """
    live = {run.id for run in live_runs(registry, experiment)} - {run_id}
    return _merged(numbers for holder, numbers in registry.list_claims(experiment).items() if holder in live)


def dead_claims(registry: Registry, experiment: str) -> dict[str, frozenset[int]]:
    """Numbers of the episodes that dead runs have claimed, by checkpoint: files without a manifest there are ours."""
    # In this order: a run that enters and claims in between is none of those that were read as dead.
    claims = registry.list_claims(experiment)
    live = {run.id for run in live_runs(registry, experiment)}
    return _merged(numbers for holder, numbers in claims.items() if holder not in live)


def _merged(claims: Iterable[Mapping[str, frozenset[int]]]) -> dict[str, frozenset[int]]:
    merged: dict[str, frozenset[int]] = {}
    for by_checkpoint in claims:
        for checkpoint, numbers in by_checkpoint.items():
            merged[checkpoint] = merged.get(checkpoint, frozenset()) | numbers
    return merged


def is_dead(run: RunRecord) -> bool:
    """Whether the run is dead: silent for too long, or killed on this machine."""
    if run.silent_s > EXPIRY_S:
        return True
    return run.staging is not None and run.machine == this_machine() and not is_alive(Path(run.staging))


@functools.cache
def this_machine() -> str:
    """Names where locks and folders of a run can be judged: this start of this machine, with this temporary folder.

    Containers may share a host's name and kernel without seeing each other's folders; their temporary folders differ.
    """
    temporary = Path(tempfile.gettempdir()).stat()
    return f"{socket.gethostname()} {_boot_id()} {temporary.st_dev}-{temporary.st_ino}"


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return ""


def _new_id() -> str:
    return f"{time.time_ns():020d}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _open(database_url: str) -> Registry:
    # Not made anew: where it was may be an empty mount point by now.
    return open_registry(database_url, create=False, reached_before=True)
