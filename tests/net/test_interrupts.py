"""SIGINT is put off while messages are in hand, and never lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from hpcremote.net.interrupts import deferred_interrupts


@pytest.fixture(autouse=True)
def python_handler() -> Iterator[None]:
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts() as interrupted:
        assert not interrupted()
        interrupt()
        assert interrupted()
        done.append("all of it")
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_several_interrupts_are_one() -> None:
    with pytest.raises(KeyboardInterrupt), deferred_interrupts():
        interrupt()
        interrupt()
    with deferred_interrupts() as interrupted:
        assert not interrupted()


def test_it_is_announced() -> None:
    announced: list[int] = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts(lambda: announced.append(1)):
        interrupt()
        assert announced == [1]


def test_nested_guards_hand_it_outwards() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupts() as outer:
        with deferred_interrupts() as inner:
            interrupt()
            assert inner()
            assert not outer()
        assert outer()
        done.append("outer")
    assert done == ["outer"]


def test_an_error_inside_is_not_hidden() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, deferred_interrupts():
        interrupt()
        raise ValueError("inside")
    assert isinstance(caught.value.__context__, ValueError)
    with pytest.raises(ValueError, match="alone"), deferred_interrupts():
        raise ValueError("alone")


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_who_ignores_interrupts_goes_on_doing_so(handler: signal.Handlers) -> None:
    signal.signal(signal.SIGINT, handler)
    with deferred_interrupts() as interrupted:
        assert signal.getsignal(signal.SIGINT) == handler
        if handler is signal.SIG_IGN:
            interrupt()
        assert not interrupted()
    assert signal.getsignal(signal.SIGINT) == handler


def test_a_handler_of_the_user_is_asked_in_the_end() -> None:
    came: list[int] = []

    def mine(signum: int, _frame: object) -> None:
        came.append(signum)

    signal.signal(signal.SIGINT, mine)
    with deferred_interrupts():
        interrupt()
        assert came == []
    assert came == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is mine


def test_other_threads_do_not_touch_handlers() -> None:
    seen: list[object] = []

    def look() -> None:
        with deferred_interrupts() as interrupted:
            seen.extend([signal.getsignal(signal.SIGINT), interrupted()])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler, False]


def test_a_signal_from_outside_during_a_system_call() -> None:
    read, write = os.pipe()
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            deferred_interrupts(lambda: os.write(write, b"!")) as interrupted,
        ):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
            assert os.read(read, 1) == b"!"
            assert interrupted()
    finally:
        os.close(read)
        os.close(write)
