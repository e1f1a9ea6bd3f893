"""Statements about runs and their claims. Everything runs in the caller's transaction.

What is decided by reading first (who holds an episode, who makes what) is decided under a lock that ends with the
transaction: SQLite's own, as transactions begin as writers, and on PostgreSQL an advisory lock by experiment.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, Float, and_, cast, delete, extract, func, inspect, select
from sqlalchemy.orm import Session

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.registry import queries
from rlhfblender_core.registry.models import Claim, Run
from rlhfblender_core.registry.records import Claimed, EpisodeRecord, RunRecord
from rlhfblender_core.registry.upserts import insert_into, is_sqlite, lock_name

#: Values in one statement, which databases limit.
_AT_ONCE = 1000

_Value = TypeVar("_Value")
IsDead = Callable[[RunRecord], bool]


def enter_run(session: Session, record: RunRecord, is_dead: IsDead) -> None:
    """Inserts the run, and deletes the rows of dead ones.

    Raises:
        InvalidParameterError: a live run makes the same experiment and checkpoint with another digest.
    """
    lock_name(session, record.experiment)
    others = [run for run in list_runs(session, record.experiment) if run.id != record.id]
    dead = [run.id for run in others if is_dead(run)]
    for run in others:
        if run.id not in dead:
            _check_same_settings(record, run)
    for part in _parts(dead):
        session.execute(delete(Run).where(Run.experiment == record.experiment, Run.id.in_(part)))
    beat(session, record)


def _check_same_settings(wanted: RunRecord, other: RunRecord) -> None:
    for checkpoint, digest in wanted.digests.items():
        if other.digests.get(checkpoint, digest) != digest:
            raise InvalidParameterError(
                f"Another run is at work on experiment {wanted.experiment!r} at {checkpoint}, with other settings, "
                "to replace its episodes, or to delete it. Wait for it, or stop it first."
            )


def beat(session: Session, record: RunRecord) -> None:
    """Inserts the run, or brings its heartbeat up to date."""
    statement = insert_into(session, Run).values(
        id=record.id,
        experiment=record.experiment,
        digests=record.digests,
        machine=record.machine,
        staging=record.staging,
        heartbeat=_now(session),
    )
    new = {name: statement.excluded[name] for name in ("digests", "heartbeat")}
    session.execute(statement.on_conflict_do_update(index_elements=["id", "experiment"], set_=new))


def leave_run(session: Session, run_id: str, experiment: str) -> None:
    """Deletes the run's row; its claims stay."""
    session.execute(delete(Run).where(Run.id == run_id, Run.experiment == experiment))


def list_runs(session: Session, experiment: str) -> list[RunRecord]:
    """The runs on an experiment, by id."""
    if not _has_tables(session):
        return []
    query = select(Run, _now(session) - Run.heartbeat).where(Run.experiment == experiment)
    records = [_record(run, silent_s) for run, silent_s in session.execute(query).tuples()]
    return sorted(records, key=lambda record: record.id)


def _record(run: Run, silent_s: float) -> RunRecord:
    return RunRecord(
        id=run.id,
        experiment=run.experiment,
        digests=run.digests,
        machine=run.machine,
        staging=run.staging,
        silent_s=silent_s,
    )


def claim(session: Session, run_id: str, key: tuple[str, str], numbers: Iterable[int], is_dead: IsDead) -> Claimed:
    """Claims what no live run has claimed.

    Args:
        session: holds the transaction.
        run_id: of the run that shall have them.
        key: experiment and checkpoint.
        numbers: of the episodes.
        is_dead: whether another run is dead.
    """
    wanted = sorted(set(numbers))
    lock_name(session, key[0])
    holders = _holders(session, key, wanted)
    live = _live_ids(session, key[0], set(holders.values()) - {run_id}, is_dead)
    held = frozenset(number for number, holder in holders.items() if holder in live)
    free = tuple(number for number in wanted if number not in held)
    _insert_claims(session, run_id, key, [number for number in free if holders.get(number) != run_id])
    # In the same transaction: what another run has released by now, it has indexed.
    indexed = frozenset(queries.find_indexed(session, *key, free))
    return Claimed(free, frozenset(free) & holders.keys(), held, indexed)


def _holders(session: Session, key: tuple[str, str], numbers: Sequence[int]) -> dict[int, str]:
    holders: dict[int, str] = {}
    for part in _parts(numbers):
        query = select(Claim.number, Claim.run_id).where(_of(key), Claim.number.in_(part))
        holders.update(session.execute(query).tuples().all())
    return holders


def _live_ids(session: Session, experiment: str, ids: Collection[str], is_dead: IsDead) -> set[str]:
    """Those among the runs that are alive; one that has no row any more is dead."""
    runs = list_runs(session, experiment) if ids else []
    return {run.id for run in runs if run.id in ids and not is_dead(run)}


def _insert_claims(session: Session, run_id: str, key: tuple[str, str], numbers: Sequence[int]) -> None:
    statement = insert_into(session, Claim)
    statement = statement.on_conflict_do_update(
        index_elements=["experiment", "checkpoint", "number"], set_={"run_id": statement.excluded.run_id}
    )
    rows = [{"experiment": key[0], "checkpoint": key[1], "number": number, "run_id": run_id} for number in numbers]
    if rows:
        session.execute(statement, rows)


def release(session: Session, run_id: str, key: tuple[str, str], numbers: Iterable[int]) -> None:
    """Deletes the claims that the run has on the episodes.

    Args:
        session: holds the transaction.
        run_id: of the run.
        key: experiment and checkpoint.
        numbers: of the episodes.
    """
    for part in _parts(sorted(set(numbers))):
        session.execute(delete(Claim).where(_of(key), Claim.number.in_(part), Claim.run_id == run_id))


def forget(session: Session, key: tuple[str, str], numbers: Iterable[int]) -> None:
    """Deletes all claims on the episodes, whoever holds them."""
    for part in _parts(sorted(set(numbers))):
        session.execute(delete(Claim).where(_of(key), Claim.number.in_(part)))


def release_published(session: Session, run_id: str, records: Sequence[EpisodeRecord]) -> None:
    """Deletes the run's claims on these episodes."""
    numbers = defaultdict(list)
    for record in records:
        numbers[record.experiment, record.checkpoint].append(record.number)
    for key in sorted(numbers):
        release(session, run_id, key, numbers[key])


def list_claims(session: Session, experiment: str) -> dict[str, dict[str, frozenset[int]]]:
    """Numbers of claimed episodes, by the run's id and the checkpoint's label."""
    if not _has_tables(session):
        return {}
    found: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    query = select(Claim.run_id, Claim.checkpoint, Claim.number).where(Claim.experiment == experiment)
    for run_id, checkpoint, number in session.execute(query).tuples():
        found[run_id][checkpoint].add(number)
    return {
        run_id: {checkpoint: frozenset(numbers) for checkpoint, numbers in by_checkpoint.items()}
        for run_id, by_checkpoint in found.items()
    }


def _of(key: tuple[str, str]) -> ColumnElement[bool]:
    experiment, checkpoint = key
    return and_(Claim.experiment == experiment, Claim.checkpoint == checkpoint)


def _parts(values: Sequence[_Value]) -> Iterator[Sequence[_Value]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _now(session: Session) -> ColumnElement[float]:
    """This moment by the database's clock, in seconds since 1970. Not the transaction's start: it may have waited."""
    if is_sqlite(session):
        return (func.julianday("now") - 2440587.5) * 86400.0
    return cast(extract("epoch", func.clock_timestamp()), Float(53))


def _has_tables(session: Session) -> bool:
    """False for an older registry on a read-only disk, which isn't migrated and on which no run can be under way."""
    return not is_sqlite(session) or inspect(session.connection()).has_table(Run.__tablename__)
