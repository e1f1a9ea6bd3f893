"""The registry's runs under way and their claims on episodes, one transaction each.

Which runs are dead is judged by the caller (:mod:`rlhfblender_core.runs.claims`): locks of folders tell it too, and the
registry knows of the database alone.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from rlhfblender_core.registry import claims
from rlhfblender_core.registry.engine import reading
from rlhfblender_core.registry.failures import translated_errors
from rlhfblender_core.registry.records import Claimed, RunRecord
from rlhfblender_core.registry.shared_engines import give_back


class Transactions:
    """Transactions on an engine that was borrowed; gives it back in the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_closed = False
        self._reading_engine = reading(engine)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes all connections, unless somebody else has the same registry open; may be called twice."""
        if not self._is_closed:
            self._is_closed = True
            give_back(self._engine)

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with translated_errors(self._engine.url), Session(self._reading_engine) as session:
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with translated_errors(self._engine.url), Session(self._engine) as session, session.begin():
            yield session


class ClaimsStore(Transactions):
    """The part of the registry by which runs know of each other."""

    def enter_run(self, record: RunRecord, is_dead: Callable[[RunRecord], bool]) -> None:
        """Inserts the run with a first heartbeat; rows of dead runs go, their claims stay. May be repeated.

        Args:
            record: the run.
            is_dead: whether another run is dead.

        Raises:
            InvalidParameterError: a live run makes the same experiment and checkpoint with another digest.
        """
        with self._write() as session:
            claims.enter_run(session, record, is_dead)

    def beat(self, record: RunRecord) -> None:
        """Gives the run a new heartbeat; one whose row is gone, because it was silent for too long, gets it back."""
        with self._write() as session:
            claims.beat(session, record)

    def leave_run(self, run_id: str, experiment: str) -> None:
        """Deletes the run's row on an experiment, if it is there. Claims it hasn't released are a dead run's then."""
        with self._write() as session:
            claims.leave_run(session, run_id, experiment)

    def list_runs(self, experiment: str) -> list[RunRecord]:
        """The runs on an experiment, by id; some may be dead."""
        with self._read() as session:
            return claims.list_runs(session, experiment)

    def claim(
        self,
        run_id: str,
        experiment: str,
        checkpoint: str,
        numbers: Iterable[int],
        is_dead: Callable[[RunRecord], bool],
    ) -> Claimed:
        """Claims the episodes and returns those that were free; may be repeated.

        Args:
            run_id: of the run that shall have them.
            experiment: the experiment's name.
            checkpoint: the checkpoint's label.
            numbers: of the episodes.
            is_dead: whether another run, whose claims are then taken over, is dead.
        """
        with self._write() as session:
            return claims.claim(session, run_id, (experiment, checkpoint), numbers, is_dead)

    def release(self, run_id: str, experiment: str, checkpoint: str, numbers: Iterable[int]) -> None:
        """Deletes the run's claims on these episodes. No error if they are gone, or another run's by now."""
        with self._write() as session:
            claims.release(session, run_id, (experiment, checkpoint), numbers)

    def forget_claims(self, experiment: str, checkpoint: str, numbers: Iterable[int]) -> None:
        """Deletes all claims on these episodes, whose files are gone. No error if there are none."""
        with self._write() as session:
            claims.forget(session, (experiment, checkpoint), numbers)

    def list_claims(self, experiment: str) -> dict[str, dict[str, frozenset[int]]]:
        """Numbers of the episodes that runs have claimed, by the run's id and the checkpoint's label."""
        with self._read() as session:
            return claims.list_claims(session, experiment)
