"""Runs under way and their claims on episodes. Everything runs in the caller's transaction.

All moments are the database's own, as seconds since 1970: clocks of machines don't matter.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Float, cast, delete, extract, func, select, update
from sqlalchemy.orm import Session

from rlhfblender_core.registry.models import Claim, Run
from rlhfblender_core.registry.upserts import insert_into

#: A run whose last heartbeat is older than so many seconds is dead.
EXPIRY_S = 75.0


@dataclass(frozen=True)
class RunEntry:
    """A run on an experiment.

    Attributes:
        id: of the run.
        experiment: whose episodes it makes.
        digests: of the requests, by checkpoint.
        machine: where it was started.
        folder: its staging folder there.
    """

    id: str
    experiment: str
    digests: Mapping[str, str]
    machine: str
    folder: str


@dataclass(frozen=True)
class Claimed:
    """What became of a claim.

    Attributes:
        free: numbers of the episodes that the run has now.
        taken_over: those among them that a dead run had; it may have moved some of their files into place.
        held: numbers of the episodes that other runs have.
    """

    free: tuple[int, ...]
    taken_over: tuple[int, ...] = ()
    held: tuple[int, ...] = ()


#: Tells of a run whether it is known to be dead, whatever its heartbeat.
IsDead = Callable[[RunEntry], bool]


def enter_run(session: Session, entry: RunEntry) -> None:
    """Inserts the run, or gives it a new heartbeat."""
    values = {
        "digests": dict(entry.digests),
        "machine": entry.machine,
        "folder": entry.folder,
        "heartbeat": _now(session),
    }
    statement = insert_into(session, Run).values(id=entry.id, experiment=entry.experiment, **values)
    session.execute(statement.on_conflict_do_update(index_elements=["id", "experiment"], set_=values))


def leave_run(session: Session, run_id: str, experiment: str) -> None:
    """Removes the run and its claims, and dead ones that have none any more."""
    session.execute(delete(Claim).where(Claim.run_id == run_id, Claim.experiment == experiment))
    session.execute(delete(Run).where(Run.id == run_id, Run.experiment == experiment))
    claimed = select(Claim.run_id).where(Claim.run_id == Run.id, Claim.experiment == Run.experiment).exists()
    session.execute(delete(Run).where(_is_silent(session), ~claimed))


def live_runs(session: Session, experiment: str, is_dead: IsDead) -> list[RunEntry]:
    """The runs under way on an experiment."""
    rows = session.scalars(select(Run).where(Run.experiment == experiment, ~_is_silent(session)))
    return [entry for entry in map(_entry, rows) if not is_dead(entry)]


def claim(
    session: Session, run_id: str, experiment: str, checkpoint: str, numbers: Collection[int], is_dead: IsDead
) -> Claimed:
    """Claims the episodes and says which were free. Claiming what one has is no error."""
    holders = _holders(session, experiment, checkpoint, numbers)
    others = {number: holder for number, holder in holders.items() if holder != run_id}
    alive = {entry.id for entry in live_runs(session, experiment, is_dead)} if others else set()
    dead = {number: holder for number, holder in others.items() if holder not in alive}
    for number, holder in dead.items():
        ours = (Claim.experiment == experiment, Claim.checkpoint == checkpoint, Claim.number == number)
        session.execute(update(Claim).where(*ours, Claim.run_id == holder).values(run_id=run_id))
    new = [
        {"experiment": experiment, "checkpoint": checkpoint, "number": number, "run_id": run_id}
        for number in sorted(set(numbers) - holders.keys())
    ]
    if new:
        session.execute(insert_into(session, Claim).values(new).on_conflict_do_nothing())
    # Asked again: another run may have claimed the same at the same moment, and only one of the two has it.
    now = _holders(session, experiment, checkpoint, numbers)
    free = tuple(number for number in sorted(numbers) if now.get(number) == run_id)
    return Claimed(
        free,
        tuple(number for number in free if number in dead),
        tuple(number for number in sorted(numbers) if number not in free),
    )


def release(session: Session, run_id: str, experiment: str, checkpoint: str, numbers: Iterable[int]) -> None:
    """Gives the run's claims on these episodes up."""
    session.execute(
        delete(Claim).where(
            Claim.run_id == run_id,
            Claim.experiment == experiment,
            Claim.checkpoint == checkpoint,
            Claim.number.in_(list(numbers)),
        )
    )


def claims_on(session: Session, experiment: str, *, alive: bool, is_dead: IsDead) -> dict[tuple[str, int], str]:
    """The run's id by checkpoint and number of the experiment's episodes that live, or dead, runs have claimed."""
    live = {entry.id for entry in live_runs(session, experiment, is_dead)}
    query = select(Claim.checkpoint, Claim.number, Claim.run_id).where(Claim.experiment == experiment)
    return {
        (checkpoint, number): run_id
        for checkpoint, number, run_id in session.execute(query).tuples()
        if (run_id in live) == alive
    }


def forget_claims(session: Session, experiment: str, checkpoint: str, numbers: Iterable[int]) -> None:
    """Removes claims on these episodes, whoever had them."""
    session.execute(
        delete(Claim).where(
            Claim.experiment == experiment, Claim.checkpoint == checkpoint, Claim.number.in_(list(numbers))
        )
    )


def _holders(session: Session, experiment: str, checkpoint: str, numbers: Collection[int]) -> dict[int, str]:
    query = select(Claim.number, Claim.run_id).where(
        Claim.experiment == experiment, Claim.checkpoint == checkpoint, Claim.number.in_(list(numbers))
    )
    return dict(session.execute(query).tuples().all())


def _is_silent(session: Session) -> ColumnElement[bool]:
    return Run.heartbeat < _now(session) - EXPIRY_S


def _now(session: Session) -> ColumnElement[float]:
    if session.get_bind().dialect.name == "sqlite":
        return (func.julianday("now") - 2440587.5) * 86400.0  # 2440587.5 is 1970 in Julian days
    return cast(extract("epoch", func.clock_timestamp()), Float)


def _entry(row: Run) -> RunEntry:
    return RunEntry(row.id, row.experiment, row.digests, row.machine, row.folder)
