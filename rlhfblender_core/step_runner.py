"""How the steps of a use case are run: called here, or as Prefect tasks by the flows.

A use case says what is done in which order, as functions of the core. Who runs it decides how: :class:`LocalRunner`
calls them; the flows' runner calls the Prefect task that wraps the function (:mod:`tasks`).
"""

import functools
import itertools
import queue
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

from rlhfblender_core.errors import TransientError
from rlhfblender_core.locations import Locations
from rlhfblender_core.workers.pool import available_cores


class _Future(Protocol):
    """What concurrent.futures and Prefect have in common."""

    def add_done_callback(self, fn: Callable[[Any], None], /) -> None: ...


P = ParamSpec("P")
F = TypeVar("F", bound=_Future)
R = TypeVar("R")
T = TypeVar("T")

#: Seconds between the tries of what failed for a while: longer together than a database takes to restart.
_DELAYS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Files are fetched from object storage while others are looked at.
_REMOTE_THREADS = 8


class StepRunner(Protocol):
    """Runs steps."""

    def do(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The step's result; what is transient is tried again."""

    def do_each(
        self,
        step: Callable[..., R],
        calls: Iterable[Mapping[str, Any]],
        concurrency: int,
        *,
        total: int | None = None,
    ) -> list[R]:
        """The step's results for each of these keyword arguments, several at a time, in their order.

        Args:
            step: function of the core.
            calls: its keyword arguments.
            concurrency: how many are run at a time.
            total: how many there are, if they take long enough for somebody to watch.

        Raises:
            RLHFBlenderError: the first that failed, once all have ended.
        """


class LocalRunner:
    """Calls the steps in this process."""

    def do(self, step: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See :class:`StepRunner`."""
        return tried_again(lambda: step(*args, **kwargs))

    def do_each(
        self,
        step: Callable[..., R],
        calls: Iterable[Mapping[str, Any]],
        concurrency: int,
        *,
        total: int | None = None,  # noqa: ARG002 (nobody watches)
    ) -> list[R]:
        """See :class:`StepRunner`."""
        found: dict[int, Future[R]] = {}
        with ThreadPoolExecutor(concurrency) as threads:

            def submit(call: tuple[int, Mapping[str, Any]]) -> Future[R]:
                return threads.submit(tried_again, functools.partial(step, **call[1]))

            try:
                for (number, _), future in as_they_end(enumerate(calls), submit, 2 * concurrency):
                    found[number] = future
            except BaseException:  # an interrupt, too: what hasn't begun needn't
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return [found[number].result() for number in sorted(found)]


def tried_again(function: Callable[[], R]) -> R:
    """The function's result; what is transient is tried again, with growing pauses.

    Raises:
        TransientError: after the last try.
    """
    for delay in _DELAYS_S:
        try:
            return function()
        except TransientError:
            time.sleep(delay * random.uniform(1.0, 1.5))  # noqa: S311 (no secret)
    return function()


def concurrency_for(locations: Locations, workers: int | None = None) -> int:
    """How many steps that read or write files are run at a time: more for storage that takes its time to answer."""
    cores = workers or available_cores()
    return cores if locations.open_root().is_local else max(cores, _REMOTE_THREADS)


def as_they_end(pieces: Iterable[T], submit: Callable[[T], F], ahead: int) -> Iterator[tuple[T, F]]:
    """Submits pieces of work and gives each with its future when it is done, in whatever order.

    So many are under way at once, and the next one is asked for when the caller has seen the result of one before it:
    how large a shard is gets decided then, and memory doesn't grow with the number of pieces.

    Args:
        pieces: made as they are asked for.
        submit: starts work on one.
        ahead: how many are under way at once.
    """
    pieces = iter(pieces)
    done: queue.SimpleQueue[tuple[T, F]] = queue.SimpleQueue()

    def start(count: int) -> int:
        started = list(itertools.islice(pieces, count))
        for piece in started:
            future = submit(piece)
            future.add_done_callback(functools.partial(_hand_over, done, (piece, future)))
        return len(started)

    under_way = start(ahead)
    while under_way:
        yield done.get()
        under_way += start(1) - 1


def _hand_over(done: "queue.SimpleQueue[R]", result: R, _future: object) -> None:
    done.put(result)
