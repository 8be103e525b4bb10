"""One connection that the threads of a process share, without a hand-off where none is needed.

Whoever waits for something reads the socket itself (the *reader*; there is one at a time). When
nobody waits, a background thread reads. So a client that blocks on a result, or an engine that
waits for work, is woken by the socket and by nothing in between.

::

    user thread     send(...)                    wait(done)
                      │ lock                       │ becomes the reader: poll fd, drain, deliver
    ──────────────────┼────────────────────────────┼────────────────────
    connection    [ transport ] fd readable ───────┘
    ──────────────────┼────────────────────────────┼────────────────────
    background      flush what was posted       reads when no user thread does

The rules that make this right:

* The transport is touched only with ``_lock`` held. The reader polls descriptors, not the transport.
  A ZeroMQ descriptor is edge-triggered, and any use of its socket may consume the edge: so whoever
  has used it looks whether there is something to read, and wakes the reader if so.
* The background thread steps aside for user threads. It takes over when none has read for a few
  milliseconds, so a loop of short blocking calls never meets it; and it sleeps without any timer
  while a user thread goes on reading, so an idle engine burns nothing.
* A reader in the main thread puts SIGINT off while it holds messages: ``KeyboardInterrupt`` is
  raised when everything that was received has been delivered.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable, Sequence

from hpcremote.net.interrupts import deferred_interrupts, never, unguarded
from hpcremote.net.standby import Standby
from hpcremote.net.transport import Transport
from hpcremote.net.watch import Watch
from hpcremote.wire.frames import FrameError, Parcel, pack, unpack

#: After it sent what was posted, the reader looks for more after this long, in milliseconds.
LINGER = 1.0
#: At most this many messages go into one batch.
BATCH = 256
#: Who can be interrupted looks up after this long, in milliseconds: a signal that comes between Python's
#: last look and the sleep does not end the sleep.
LOOK_UP = 200.0

_log = logging.getLogger("hpcremote")

_NO_CHANGES: list[bool] = []

Deliver = Callable[[Sequence[Parcel]], None]


class Channel:
    """A shared connection; see the module's docstring.

    Args:
        transport: an open connection; the channel owns it from now on.
        deliver: gets every batch of messages, in order, one call at a time, in the reader's thread;
            no lock is held.
        connection_changed: called with False when the connection broke and True when it is back.
        abandoned: called by the background thread after :meth:`abandon`.
        tick: called by the background thread every ``tick_every`` seconds while no user thread reads, and
            ``ticks()``, which can become true only by what is delivered, or while a user thread reads.
    """

    def __init__(
        self,
        transport: Transport,
        deliver: Deliver,
        connection_changed: Callable[[bool], None],
        *,
        tick: Callable[[], None] | None = None,
        tick_every: float = 0.05,
        ticks: Callable[[], bool] = lambda: True,
        abandoned: Callable[[], None] | None = None,
        defer_interrupts: bool = True,
    ) -> None:
        self._transport = transport
        self._deliver = deliver
        self._connection_changed = connection_changed
        self._tick, self._tick_every = tick or (lambda: None), tick_every
        self._ticks = ticks if tick else lambda: False
        self._on_abandoned = abandoned
        self._abandoned = False
        self._guard = deferred_interrupts if defer_interrupts else unguarded
        self._lock = threading.Lock()  # held while the socket is touched
        self._reader = threading.Lock()  # held by the thread that reads
        self._reader_id = 0
        self._background_reads = False
        self._turn = threading.Condition()  # user threads that wait while another one reads
        self._waiting = 0
        self._users = 0
        self._standby = Standby(self._reader)
        self._outbox: list[Parcel] = []
        self._flushing = False  # the reader looks at the outbox again within LINGER
        self._closed = False
        self._gone = False
        self._fired = False  # a descriptor fired since the transport was asked for changes
        self._watch = Watch(transport.fds)
        self._thread = threading.Thread(target=self._background, name="hpcremote-io", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ sending

    def send(self, parcels: Sequence[Parcel]) -> bool:
        """Send what was posted, then *parcels*, now; return False if there is no connection."""
        if self._guard is unguarded:
            return self.send_guarded(parcels)
        with self._guard():
            return self.send_guarded(parcels)

    def post(self, parcel: Parcel) -> None:
        """Send *parcel* soon, together with what else is posted by then.

        Raises nothing: a connection that is gone is reported to ``connection_changed``.
        """
        outbox = self._outbox
        outbox.append(parcel)
        if len(outbox) >= BATCH:
            self.send(())
        elif not self._flushing:
            with self._guard():  # announced but not rung for, it would wait for ever
                self._flushing = True
                self.wake()

    def flush(self) -> None:
        """Send what was posted, now."""
        if self._outbox:
            self.send(())

    def send_guarded(self, parcels: Sequence[Parcel]) -> bool:
        """Send now, as :meth:`send` does, for a caller that puts interrupts off itself."""
        transport = self._transport
        with self._lock:
            if self._closed:
                return False
            posted = self._outbox[:]
            del self._outbox[: len(posted)]  # not replaced: another thread may be appending
            sent = _send(transport, [*posted, *parcels] if posted else parcels)
            unheard = transport.pending
            if transport.edges and self._reader.locked() and self._reader_id != threading.get_ident():
                unheard = transport.stolen()
        if unheard:
            self._watch.ring()
        return sent

    # ------------------------------------------------------------ waiting

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Read the socket, or wait for who does, until ``done()``, the timeout, or SIGINT.

        Args:
            done: asked after every delivery; must be quick.
            timeout: seconds, or None to wait without limit.

        Returns:
            What ``done()`` says in the end.

        Raises:
            KeyboardInterrupt: in the main thread, after everything received was delivered.
        """
        if done():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._outbox:
            self.flush()
        with self._guard(self._watch.ring) as interrupted:
            self._users += 1
            try:
                while not (self._closed or interrupted()):
                    if self._take_turn(done, deadline, interrupted):
                        return True
                    if done() or (deadline is not None and time.monotonic() >= deadline):
                        break
            finally:
                self._users -= 1
        return done()

    def _take_turn(
        self, done: Callable[[], bool], deadline: float | None, interrupted: Callable[[], bool]
    ) -> bool:
        """Read, or wait for the reader; return True if that is certain to be what ``done()`` says."""
        if self._reader.acquire(blocking=False):
            self._standby.readings += 1
            self._reader_id = threading.get_ident()
            try:
                if interrupted is never:
                    return self._read(done, deadline)
                self._read(lambda: done() or interrupted(), deadline, LOOK_UP)
                return False
            finally:
                self._leave()
        if self._reader_id == threading.get_ident():
            raise RuntimeError(
                "a callback cannot wait for a result: it runs in the thread that receives results; "
                "let it start a thread that waits"
            )
        if self._background_reads:
            self._watch.ring()
        with self._turn:
            self._waiting += 1  # before done() is asked: who delivers from now on notifies us
            try:
                if self._reader.locked() and not done():
                    # Bounded, so that this thread sees an interrupt that came while another one reads.
                    left = 0.1 if deadline is None else min(0.1, max(0.0, deadline - time.monotonic()))
                    self._turn.wait(left)
            finally:
                self._waiting -= 1
        return False

    def _leave(self) -> None:
        self._reader_id = 0
        self._reader.release()
        if self._waiting:
            self._tell_waiting()
        self._standby.reader_left()

    def wake(self) -> None:
        """Make waiting threads ask their ``done()`` again, and the background thread flush."""
        self._watch.ring()

    # ------------------------------------------------------------ reading

    def _read(self, done: Callable[[], bool], deadline: float | None, longest: float | None = None) -> bool:
        """As the reader, deliver what comes until ``done()`` (asked every *longest* ms) or the deadline."""
        fired = False
        while not self._closed:
            if batch := self._receive(certain=fired):
                self._deliver(batch)
                if self._waiting:
                    self._tell_waiting()
                fired = False
                if done():
                    return True
                continue
            if done():
                return True
            if self._outbox:
                self._flushing = True
                self.send_guarded(())
                timeout: float | None = LINGER
            else:
                self._flushing = False
                if self._outbox:  # posted just before, by a thread that relied on us
                    continue
                timeout = longest
            if deadline is not None:
                left = (deadline - time.monotonic()) * 1000
                if left <= 0:
                    return False
                timeout = left if timeout is None else min(left, timeout)
            fired = self._sleep(timeout)
        return False

    def _sleep(self, milliseconds: float | None) -> bool:
        """Wait for something to happen; return whether the transport has to be looked at."""
        writing = self._transport.pending
        fired = self._watch.wait(milliseconds, writing=writing)
        if writing:
            with self._lock:
                self._transport.flush()
        return fired

    def _tell_waiting(self) -> None:
        with self._turn:
            self._turn.notify_all()

    def _receive(self, *, certain: bool) -> list[Parcel]:
        """Return what came, or nothing.

        Args:
            certain: a descriptor has just fired, so that asking first would be a waste.
        """
        transport = self._transport
        with self._lock:
            if self._closed:
                return []
            try:
                batches = transport.receive(certain=certain)
                if len(batches) == 1:
                    parcels = unpack(*batches[0])
                else:
                    parcels = [parcel for head, frames in batches for parcel in unpack(head, frames)]
            except FrameError:
                # Only the controller can send here, and only a broken or other one sends this.
                changes, parcels = [False], []
                self._closed = True
            else:
                self._fired = self._fired or certain
                changes = _NO_CHANGES
                if self._fired and not parcels:
                    self._fired = False
                    changes = transport.changes()
        if transport.fds is not self._watch.fds:  # it goes another way now; only the reader sleeps on them
            self._watch.change(transport.fds)
        if changes:
            self._report(changes)
        return parcels

    def _report(self, changes: list[bool]) -> None:
        # What came before the end of the connection still counts.
        while batch := self._receive(certain=False):
            self._deliver(batch)
            self._tell_waiting()
        for connected in changes:
            if not connected and self._transport.final:
                self._watch.forget()  # it would fire for ever
            self._connection_changed(connected)
        self._tell_waiting()

    # ------------------------------------------------------------ the background thread

    def _background(self) -> None:
        while not self._closed:
            if self._abandoned and self._on_abandoned is not None:
                self._on_abandoned()
                return
            if self._users == 0 and self._standby.is_quiet() and self._reader.acquire(blocking=False):
                self._background_reads = True
                self._reader_id = threading.get_ident()
                try:
                    self._read_in_background()
                except Exception:  # noqa: BLE001 - nobody would ever read again if this thread ended
                    _log.exception("delivering messages failed")
                finally:
                    self._background_reads = False
                    self._leave()
            if not self._closed:
                self._standby.sleep()

    def _read_in_background(self) -> None:
        def wanted() -> bool:
            return self._users > 0 or self._abandoned

        while not self._closed and not wanted():
            if self._ticks():
                self._read(wanted, time.monotonic() + self._tick_every)
                self._tick()
            else:
                self._read(lambda: wanted() or self._ticks(), None)

    # ------------------------------------------------------------ the end

    def abandon(self) -> None:
        """Let the background thread see to the end. Takes no lock: the garbage collector may call this."""
        self._abandoned = True
        self._watch.ring()

    def close(self, linger: float = 1.0) -> None:
        """Send what was posted, for at most *linger* seconds, and close. Waiting threads return."""
        self.flush()
        _drain(self._transport, self._lock, linger)
        self._closed = True
        self._watch.ring()
        self._standby.end()
        with self._turn:
            self._turn.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(5.0)
        with self._lock:
            if not self._gone:
                self._gone = True
                self._transport.close(linger)


def _drain(transport: Transport, lock: threading.Lock, linger: float) -> None:
    """Wait until the kernel took what waits, for at most *linger* seconds."""
    deadline = time.monotonic() + linger
    writable = select.poll()
    writable.register(transport.fds[0], select.POLLOUT)
    while transport.pending and (left := deadline - time.monotonic()) > 0:
        writable.poll(left * 1000)
        with lock:
            transport.flush()


def _send(transport: Transport, parcels: Sequence[Parcel]) -> bool:
    if len(parcels) <= BATCH:
        return not parcels or transport.send(pack(parcels))
    sent = True
    for start in range(0, len(parcels), BATCH):
        sent = transport.send(pack(parcels[start : start + BATCH])) and sent
    return sent
