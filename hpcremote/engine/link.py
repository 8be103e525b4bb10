"""An engine's one connection: feeds the machine, in whichever thread reads.

The main thread reads while it has nothing to do. While it runs user code the background thread
reads, so that aborts, definitions and the end of the connection are noticed, and sends what the
running call has printed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from hpcremote.connection import Connection
from hpcremote.engine.machine import Engine
from hpcremote.net.channel import Channel
from hpcremote.net.transport import Transport
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Parcel

#: How often the output of a running call is looked for, in seconds.
TICK = 0.05


class Link:
    """The connection of an engine to its controller, direct or by its node's agent.

    Args:
        connection: the cluster's.
        machine: gets what comes.
        transport: the open connection; it belongs to the link from now on.
        tick: called every so often while the main thread does something else, and ``ticks()``.

    Attributes:
        lost_since: monotonic time at which the connection broke, or None.
        on_loss: called when it breaks, by whichever thread reads.
    """

    def __init__(
        self,
        connection: Connection,
        machine: Engine,
        transport: Transport,
        *,
        tick: Callable[[], None],
        ticks: Callable[[], bool] = lambda: True,
    ) -> None:
        self.connection = connection
        self.lost_since: float | None = None
        self.on_loss: Callable[[], None] = lambda: None
        self._machine = machine
        self._lock = threading.Lock()  # guards the machine
        self._introduction: list[Parcel] = []
        self._channel = Channel(
            transport,
            self._deliver,
            self._connection_changed,
            tick=tick,
            tick_every=TICK,
            ticks=ticks,
            defer_interrupts=False,
        )

    def introduce(self, *messages: m.AnyMessage) -> None:
        """Send *messages*, now and whenever the connection is made anew."""
        self._introduction = [(message, ()) for message in messages]
        self._channel.send(self._introduction)

    def send(self, parcels: Sequence[Parcel]) -> None:
        """Send now; without a connection nothing is sent (the controller has given our calls up)."""
        self._channel.send(parcels)

    def post(self, parcel: Parcel) -> None:
        """Send soon."""
        self._channel.post(parcel)

    def take(self) -> object:
        """Return what the machine wants done next."""
        with self._lock:
            return self._machine.next()

    def finished(self) -> int:
        """Tell the machine that its job ended; return how many runs wait."""
        with self._lock:
            self._machine.finished()
            return self._machine.queued

    def wait(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait, reading; see :meth:`hpcremote.net.channel.Channel.wait`."""
        return self._channel.wait(done, timeout)

    def seconds_alone(self) -> float:
        """Return for how long there has been no controller."""
        since = self.lost_since
        return 0.0 if since is None else time.monotonic() - since

    def close(self) -> None:
        """Send what is on its way and close."""
        self._channel.close()

    def _deliver(self, parcels: Sequence[Parcel]) -> None:
        answers: list[m.AnyMessage] = []
        with self._lock:
            for message, frames in parcels:
                answers += self._machine.handle(message, frames)
        for answer in answers:
            self._channel.post((answer, ()))

    def _connection_changed(self, connected: bool) -> None:
        if not connected:
            if self.lost_since is None:
                self.lost_since = time.monotonic()
                self.on_loss()
            return
        self.lost_since = None
        self._channel.send(self._introduction)
