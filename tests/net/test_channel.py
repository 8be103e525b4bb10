"""One connection, many threads: nothing is lost, nobody waits in vain, whoever reads."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from hpcremote.net.channel import Channel
from hpcremote.net.stream import Closed, Stream
from hpcremote.net.transport import StreamTransport
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Parcel, pack, unpack

SOON = 20.0


class Bench:
    """A channel, and its other end, which answers every Query."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.far = Stream(theirs, keep=True)
        self.came: list[m.AnyMessage] = []
        self.changes: list[bool] = []
        self.asked: list[int] = []
        self.on_deliver: Callable[[], None] = lambda: None
        self.channel = Channel(StreamTransport(Stream(ours, keep=False)), self._deliver, self.changes.append)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _deliver(self, parcels: Sequence[Parcel]) -> None:
        self.came += [message for message, _ in parcels]
        self.on_deliver()

    def answer_queries(self) -> None:
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                batches = self.far.receive()
                for head, _ in batches:
                    for message, _ in unpack(head):
                        assert isinstance(message, m.Query)
                        self.asked.append(message.request)
                        self.far.send(pack([(m.Answer(message.request, "1"), ())]))
                self.far.flush()
                if not batches:
                    time.sleep(0.0002)
        except Closed:
            pass

    def answered(self, number: int) -> bool:
        return any(isinstance(message, m.Answer) and message.request == number for message in self.came)

    def tell(self, *messages: m.AnyMessage) -> None:
        self.far.send(pack([(message, ()) for message in messages]))

    def eventually(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SOON
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.channel.close()
        self.far.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def query(number: int) -> Parcel:
    return (m.Query(number, "info"), ())


def test_who_waits_reads(bench: Bench) -> None:
    bench.answer_queries()
    readers = set()
    bench.on_deliver = lambda: readers.add(threading.get_ident())
    for number in range(200):
        bench.channel.send([query(number)])
        assert bench.channel.wait(lambda: bench.answered(number), SOON)  # noqa: B023
    assert threading.get_ident() in readers


def test_what_comes_is_delivered_although_nobody_waits(bench: Bench) -> None:
    bench.tell(m.Stop("1"))
    bench.eventually(lambda: bench.came == [m.Stop("1")])
    assert bench.channel.wait(lambda: True)
    bench.tell(m.Stop("2"))
    bench.eventually(lambda: len(bench.came) == 2)


def test_what_is_posted_goes_out_although_nobody_waits(bench: Bench) -> None:
    bench.answer_queries()
    for number in range(1_000):
        bench.channel.post(query(number))
    bench.eventually(lambda: len(bench.asked) == 1_000)
    assert bench.asked == list(range(1_000))


def test_posts_of_many_threads_arrive_once_each_in_their_order(bench: Bench) -> None:
    bench.answer_queries()

    def work(first: int) -> None:
        for number in range(first, first + 2_000):
            if number % 7:
                bench.channel.post(query(number))
            else:
                bench.channel.send([query(number)])

    threads = [threading.Thread(target=work, args=(index * 10_000,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.eventually(lambda: len(bench.asked) >= 8_000)
    for index in range(4):
        own = [number for number in bench.asked if number // 10_000 == index]
        assert own == list(range(index * 10_000, index * 10_000 + 2_000))


def test_threads_that_wait_at_once_all_get_theirs(bench: Bench) -> None:
    bench.answer_queries()
    late: list[float] = []

    def work(first: int) -> None:
        for number in range(first, first + 100):
            began = time.monotonic()
            bench.channel.send([query(number)])
            assert bench.channel.wait(lambda: bench.answered(number), SOON)  # noqa: B023
            late.append(time.monotonic() - began)

    threads = [threading.Thread(target=work, args=(index * 1_000,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(late) == 400


def test_waiting_has_an_end(bench: Bench) -> None:
    began = time.monotonic()
    assert bench.channel.wait(lambda: False, 0.05) is False
    assert 0.04 < time.monotonic() - began < SOON / 2


@pytest.mark.parametrize("how", ["close", "far end"])
def test_an_end_wakes_all_who_wait(bench: Bench, how: str) -> None:
    returned: list[bool] = []
    waits = threading.Barrier(4)

    def work() -> None:
        waits.wait()
        returned.append(bench.channel.wait(lambda: bool(bench.changes), None))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    waits.wait()
    if how == "close":
        bench.channel.close()
    else:
        bench.tell(m.Stop("last words"))
        bench.far.close()
    for thread in threads:
        thread.join(SOON)
    assert len(returned) == 3
    if how == "far end":
        assert (bench.changes, bench.came) == ([False], [m.Stop("last words")])
        assert bench.channel.send([query(1)]) is False


def test_garbage_ends_the_connection(bench: Bench) -> None:
    bench.far.send([b"garbage"])
    bench.eventually(lambda: bench.changes == [False])
    assert bench.channel.wait(lambda: False, SOON) is False


def test_a_callback_that_waits_is_told_rather_than_hung(bench: Bench) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            bench.channel.wait(lambda: False, SOON)
        except RuntimeError as error:
            errors.append(error)

    bench.on_deliver = wait
    bench.tell(m.Stop("x"))
    bench.eventually(lambda: len(errors) == 1)
    assert "callback cannot wait" in str(errors[0])
    bench.on_deliver = lambda: None
    bench.tell(m.Stop("y"))
    assert bench.channel.wait(lambda: len(bench.came) == 2, SOON)


def test_an_interrupt_ends_the_wait_and_loses_nothing(bench: Bench) -> None:
    bench.answer_queries()
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        for number in range(20):
            bench.channel.send([query(number)])
            timer = threading.Timer(0.001 + 0.002 * (number % 4), os.kill, (os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                timer.start()
                bench.channel.wait(lambda: False, SOON)
            timer.join()
        bench.channel.send([query(99)])
        assert bench.channel.wait(lambda: bench.answered(99), SOON)
    finally:
        signal.signal(signal.SIGINT, former)
    bench.eventually(lambda: all(bench.answered(number) for number in range(20)))


def test_an_interrupt_that_does_not_end_the_sleep_is_noticed(bench: Bench) -> None:
    # As when the signal comes between Python's last look and the system call. Here another thread gets it.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    ready = threading.Event()

    def press() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        ready.wait(10)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    end = time.monotonic() + 30
    try:
        with pytest.raises(KeyboardInterrupt):
            bench.channel.wait(lambda: ready.set() or False, 30)  # type: ignore[func-returns-value]
        assert time.monotonic() < end, "it was noticed at the end of the wait"
    finally:
        thread.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, former)


def test_closing_twice_and_late_use_are_harmless(bench: Bench) -> None:
    bench.channel.close()
    bench.channel.close()
    bench.channel.post(query(1))
    bench.channel.wake()
    assert bench.channel.send([query(2)]) is False
    assert bench.channel.wait(lambda: False, SOON) is False


def test_channels_leave_no_descriptors_and_no_threads() -> None:
    gc.collect()
    before = (len(os.listdir("/proc/self/fd")), threading.active_count())
    for _ in range(20):
        made = Bench()
        made.close()
        made.channel = None  # type: ignore[assignment]
        made.on_deliver = lambda: None
        del made
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before
