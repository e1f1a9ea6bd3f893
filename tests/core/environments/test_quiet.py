"""What native code prints goes nowhere while an environment is made, and what is printed afterwards arrives."""

import ctypes
import os
import threading

import pytest

from rlhfblender_core.environments.quiet import quiet_natives


def print_natively(text: str) -> None:
    """By the C library, which keeps it until it has a page full where nobody looks on."""
    ctypes.CDLL(None).printf(b"%s\n", text.encode())


def test_native_code_is_not_heard_inside_and_is_outside(capfd: pytest.CaptureFixture[str]) -> None:
    print_natively("before")
    with quiet_natives():
        print_natively("inside")
        os.write(2, b"inside\n")
        print("inside")
    print_natively("after")
    ctypes.CDLL(None).fflush(None)
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("before\nafter\n", "after\n")


def test_streams_come_back_when_the_last_of_several_threads_has_left(capfd: pytest.CaptureFixture[str]) -> None:
    first_is_in, second_is_in, first_is_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with quiet_natives():
            first_is_in.set()
            assert second_is_in.wait(20)
        first_is_out.set()

    def second() -> None:
        assert first_is_in.wait(20)
        with quiet_natives():
            second_is_in.set()
            assert first_is_out.wait(20)
            os.write(1, b"inside\n")

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    os.write(1, b"after\n")
    print("after")
    assert capfd.readouterr().out == "after\nafter\n"


def test_an_environment_that_closes_the_streams_leaves_them_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet_natives():
        os.close(1)
        os.close(2)
    os.write(1, b"out\n")
    os.write(2, b"err\n")
    assert capfd.readouterr() == ("out\n", "err\n")
