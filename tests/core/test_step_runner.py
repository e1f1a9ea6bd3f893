"""How a use case's steps are run: several at a time, few ahead, in their order, with the first failure."""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from rlhfblender_core.errors import InvalidParameterError
from rlhfblender_core.step_runner import LocalRunner

RUN = LocalRunner()


def doubled(number: int) -> int:
    return 2 * number


def test_results_come_in_the_order_of_the_calls() -> None:
    last_is_done = threading.Event()

    def slow_first(number: int) -> int:
        if number == 0:
            assert last_is_done.wait(20)
        elif number == 3:
            last_is_done.set()
        return number

    calls = ({"number": number} for number in range(4))
    assert RUN.do_each(slow_first, calls, 2) == [0, 1, 2, 3]
    assert RUN.do_each(doubled, [], 2) == []


def test_few_calls_are_made_ahead() -> None:
    """What a call holds is there while it is under way: of a million, too, a few are."""
    ended = made = most = 0

    def calls() -> Iterator[Mapping[str, Any]]:
        nonlocal made, most
        for number in range(200):
            made += 1
            most = max(most, made - ended)
            yield {"number": number}

    def step(number: int) -> int:
        nonlocal ended
        ended += 1  # one thread
        return number

    assert RUN.do_each(step, calls(), 1) == list(range(200))
    assert most <= 4, most


def test_the_first_failure_in_order_is_raised_once_all_have_ended() -> None:
    done = []
    second_failed = threading.Event()

    def step(number: int) -> None:
        if number == 1:
            assert second_failed.wait(20)
        if number == 2:
            second_failed.set()
        if number in {1, 2}:
            raise InvalidParameterError(f"number {number}")
        done.append(number)

    with pytest.raises(InvalidParameterError, match="number 1"):
        RUN.do_each(step, ({"number": number} for number in range(50)), 2)
    assert sorted(done) == [0, *range(3, 50)]


def test_what_has_not_begun_when_a_person_interrupts_never_does() -> None:
    begun = []

    def step(number: int) -> None:
        begun.append(number)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        RUN.do_each(step, ({"number": number} for number in range(9)), 1)
    assert begun == [0]
