"""How runs that overlap share their work: by claims on episodes in the registry.

A run claims what it makes and leaves alone what others have claimed, until that is published or they are dead. Runs
whose registries differ don't see each other; what they make twice has the same bytes.

A run is dead when its heartbeat has been missing for a while, by the database's clock, or at once when it was one of
this machine's and the lock of its folder can be had: after a kill, the same command goes on without waiting.
"""

import contextlib
import platform
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from rlhfblender_core.dataset.layout import CheckpointKey
from rlhfblender_core.errors import InvalidParameterError, RLHFBlenderError
from rlhfblender_core.registry import Claimed, Registry, RunEntry, open_registry
from rlhfblender_core.runs.folders import Run, is_alive

HEARTBEAT_S = 20.0
#: In the place of a digest: the episodes are being deleted.
DELETED = "deleted"


@contextlib.contextmanager
def open_claims(database_url: str, run: Run, experiment: str, digests: Mapping[str, str]) -> Iterator[None]:
    """Has the run known as alive, and what it makes, while the context lasts; its claims are released in the end.

    Args:
        database_url: of the registry, which is made if needed.
        run: whose folder's lock says that it is alive.
        experiment: whose episodes it makes.
        digests: of the requests, by checkpoint.

    Raises:
        InvalidParameterError: another run makes the same checkpoints' episodes with other settings.
    """
    entry = RunEntry(run.name, experiment, digests, this_machine(), str(run.folder))
    with open_registry(database_url) as registry:
        others = registry.enter_run(entry, is_dead)
        differing = sorted({label for other in others for label in _differing(other.digests, digests)})
        if differing:
            registry.leave_run(run.name, experiment)
            raise InvalidParameterError(
                f"Another run is at work on experiment {experiment!r} at {differing[0]}, with other settings or to "
                "delete it. Wait for it, or stop it first."
            )
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(registry, entry, stop), name="heartbeat", daemon=True)
        beat.start()
        try:
            yield
        finally:
            stop.set()
            beat.join()
            with contextlib.suppress(RLHFBlenderError):  # the claims expire by themselves
                registry.leave_run(run.name, experiment)


def _beat(registry: Registry, entry: RunEntry, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_S):
        # The next one may get through. A run that was thought dead is entered again; what others have claimed since,
        # they make too, with the same bytes.
        with contextlib.suppress(RLHFBlenderError):
            registry.enter_run(entry, is_dead)


def _differing(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    return [label for label, digest in ours.items() if theirs.get(label, digest) != digest]


def claim(database_url: str, run_id: str, key: CheckpointKey, numbers: Collection[int]) -> Claimed:
    """Claims episodes for a run, which may be one of another machine, and says which were free."""
    with open_registry(database_url, create=False, reached_before=True) as registry:
        return registry.claim(run_id, key.experiment, key.checkpoint, numbers, is_dead)


def release(database_url: str, run_id: str, key: CheckpointKey, numbers: Collection[int]) -> None:
    """Gives a run's claims on these episodes up."""
    with open_registry(database_url, create=False, reached_before=True) as registry:
        registry.release(run_id, key.experiment, key.checkpoint, numbers)


def held_by_others(database_url: str, experiment: str, run_id: str) -> dict[str, frozenset[int]]:
    """Numbers of the episodes that live other runs have claimed, by checkpoint."""
    held: dict[str, set[int]] = {}
    with open_registry(database_url, create=False, reached_before=True) as registry:
        for (checkpoint, number), holder in registry.claims_on(experiment, is_dead, alive=True).items():
            if holder != run_id:
                held.setdefault(checkpoint, set()).add(number)
    return {checkpoint: frozenset(numbers) for checkpoint, numbers in held.items()}


def live_runs(registry: Registry | None, experiment: str) -> list[RunEntry]:
    """The runs under way on an experiment; none without a registry, where no run has come that far."""
    return [] if registry is None else registry.live_runs(experiment, is_dead)


def dead_claims(registry: Registry, experiment: str) -> dict[str, frozenset[int]]:
    """Numbers of the episodes that dead runs had claimed, by checkpoint: files of theirs without manifest are ours."""
    claimed: dict[str, set[int]] = {}
    for checkpoint, number in registry.claims_on(experiment, is_dead, alive=False):
        claimed.setdefault(checkpoint, set()).add(number)
    return {checkpoint: frozenset(numbers) for checkpoint, numbers in claimed.items()}


def is_dead(entry: RunEntry) -> bool:
    """Whether the run is known to have died: one of this machine's whose folder nobody holds any more."""
    return entry.machine == this_machine() and not is_alive(Path(entry.folder))


def this_machine() -> str:
    """What tells this machine, since its last start, and this container from others: processes here see each other."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return ":".join(parts)
