"""A training in a process of its own: what it says arrives as events, and it ends with the process that started it."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection

from rlhfblender_core.errors import RLHFBlenderError, TrainingFailedError, WorkerLostError, one_line
from rlhfblender_core.train.job import Ended, Event, Ready, TrainingJob
from rlhfblender_core.train.model_folder import TrainingRecord
from rlhfblender_core.workers.processes import (
    begin_worker,
    how_it_ended,
    process_context,
    start_fork_server,
    starting_processes,
)

_END_S = 5.0


@contextlib.contextmanager
def training_process(job: TrainingJob, record: TrainingRecord) -> Iterator[Iterator[Event]]:
    """Events of a training, as they come, until it has ended; it is stopped with the context.

    After :class:`~rlhfblender_core.train.job.Ready` it waits until the next event is asked for.

    Args:
        job: what to train.
        record: of the training so far.

    Raises:
        WorkerLostError: (by the iterator) the process died.
        RLHFBlenderError: (likewise) the training can't be made, or failed.
    """
    start_fork_server(trained=True)
    context = process_context()
    ours, theirs = context.Pipe()
    process = context.Process(  # type: ignore[attr-defined]  # every context has it
        target=_train, args=(theirs, job, record, dict(os.environ)), name="training", daemon=True
    )
    with starting_processes():
        process.start()
    theirs.close()
    try:
        yield _events(ours, process)
    finally:
        process.terminate()
        process.join(_END_S)
        if process.exitcode is None:
            process.kill()
            process.join()
        ours.close()


def _events(connection: Connection, process: object) -> Iterator[Event]:
    while True:
        try:
            event: Event = connection.recv()
        except (EOFError, OSError):
            ended = how_it_ended([process])  # type: ignore[list-item]  # a process of the context's kind
            raise WorkerLostError(
                f"The training process died ({ended}). The same command goes on from its last checkpoint."
            ) from None
        if isinstance(event, Ended):
            if event.error is not None:
                raise event.error
            return
        yield event
        if isinstance(event, Ready):
            with contextlib.suppress(OSError):  # it has died: told by the next event
                connection.send(None)


def _train(connection: Connection, job: TrainingJob, record: TrainingRecord, variables: Mapping[str, str]) -> None:
    begin_worker(variables)
    from rlhfblender_core.train.trainer import train_agent  # with torch

    def tell(event: Event) -> None:
        connection.send(event)
        if isinstance(event, Ready):
            connection.recv()

    try:
        train_agent(job, record, tell)
        connection.send(Ended())
    except RLHFBlenderError as error:
        connection.send(Ended(error))
    except (BrokenPipeError, EOFError):  # nobody listens any more
        pass
    except Exception as error:  # noqa: BLE001 (somebody's environment, or values that nothing can be learned from)
        connection.send(Ended(TrainingFailedError(f"The training failed: {one_line(error)}")))
