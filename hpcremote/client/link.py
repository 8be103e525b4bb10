"""A client's connection: calls go out in one order, results come in by whichever thread reads.

This is the thin shell around :class:`hpcremote.client.machine.Session`.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec

from hpcremote._version import __version__
from hpcremote.client.machine import PLAIN, Delivery, Function, Session, Sink, Terms
from hpcremote.client.parts import remove_blobs, to_parts
from hpcremote.client.requests import Requests
from hpcremote.client.walltime import Walltime
from hpcremote.connection import Connection
from hpcremote.errors import HPCRemoteError, NoEnginesRegistered, NotConnected, PayloadError, Refused
from hpcremote.ids import new_uid
from hpcremote.net.channel import Channel
from hpcremote.net.connect import connect
from hpcremote.net.interrupts import deferred_interrupts
from hpcremote.net.shm import read_blob, remove_blob
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame, Parcel
from hpcremote.wire.payload import BIG, to_part

#: Up to this many results outstanding, a call is sent at once; beyond, calls are sent in batches.
EAGER = 4
#: A client with this many results outstanding waits before it sends more, so that memory is bounded.
MAX_OPEN = 50_000
_UNGUARDED = nullcontext()


class Link(Requests):
    """A connection to a controller.

    Attributes:
        uid: this connection's name, random.
        lost: why the connection ended, or None.
        walltime: when the engines' jobs end.

    Raises:
        NotConnected: nobody answers.
        Refused: the controller will not have us.
    """

    def __init__(self, connection: Connection, *, timeout: float = 10.0) -> None:
        self.connection = connection
        self.uid = new_uid()
        self.lost: HPCRemoteError | None = None
        self._told = False  # every open call knows that the connection is lost
        self._pid = os.getpid()
        self.walltime = Walltime(lambda: self.engines)
        self._session = Session(on_hanging=_tell_of_hanging, on_time_left=self.walltime.learn)
        self._lock = threading.Lock()  # numbers and sends calls in one order
        deadline = time.monotonic() + timeout
        opened = connect(connection, timeout)
        self.address = opened.address
        self._channel = Channel(
            opened.transport, self._deliver, self._connection_changed, abandoned=self.close
        )
        try:
            self._introduce(deadline, timeout)
        except BaseException:
            self._channel.close()
            raise
        atexit.register(self.close)  # what was posted last has to go out

    def _introduce(self, deadline: float, timeout: float) -> None:
        session = self._session
        version = ".".join(map(str, sys.version_info[:3]))
        hello = m.Hello(self.uid, m.PROTOCOL, __version__, socket.gethostname(), os.getpid(), version)
        self._channel.send([(hello, ())])
        self._channel.wait(
            lambda: bool(session.welcome or session.refused or self.lost),
            max(0.1, deadline - time.monotonic()),
        )
        if session.refused:
            raise Refused(
                f"the controller of cluster {self.connection.cluster_id!r} refused: {session.refused}"
            )
        if self.lost:
            raise self.lost
        if session.welcome is None:
            raise NotConnected(
                f"the controller of cluster {self.connection.cluster_id!r} at {self.address} took the "
                f"connection but did not answer within {timeout:g} s"
            )

    # ------------------------------------------------------------ what is known

    @property
    def welcome(self) -> m.Welcome:
        """What the controller said when it took us in."""
        assert self._session.welcome is not None  # noqa: S101 - __init__ does not end before it came
        return self._session.welcome

    @property
    def cluster_id(self) -> str:
        """The cluster's id."""
        return self.welcome.cluster_id

    @property
    def engines(self) -> dict[int, m.EngineInfo]:
        """The live engines by id; never changed in place."""
        return self._session.engines

    @property
    def gone(self) -> dict[int, m.Gone]:
        """The engines that went since we came, and how."""
        return self._session.gone

    # ------------------------------------------------------------ calls

    def submit(
        self,
        targets: Sequence[int],
        op: str,
        payloads: Sequence[list[Any]],
        *,
        function: Function | None = None,
        terms: Terms = PLAIN,
        sink: Sink,
    ) -> int:
        """Send one call to *targets*; return its number.

        Args:
            targets: engine ids.
            op: what to do there.
            payloads: pieces (see wire.payload) for all targets, or one list of them for each.
            function: the function to apply, if it is not in the payload.
            terms: what goes with it.
            sink: takes results and output.

        Raises:
            NoEnginesRegistered: *targets* is empty.
            EngineError: one of them is not here.
            NotConnected: the controller is gone, or this process is a fork of the one that connected.
        """
        if not targets:
            here = self._session.engines
            raise NoEnginesRegistered(
                f"this view names no engine; there are: {_listed(here)}" if here else no_engines(self.gone)
            )
        self._check()
        session = self._session
        if session.open > MAX_OPEN:
            self._channel.wait(lambda: session.open <= MAX_OPEN or self.lost is not None)
            self._check()
        session.check(targets)
        if not isinstance(terms.label, str):
            raise TypeError(f"a label is text, not {terms.label!r}")
        parts, frames = self._parts(targets, payloads)
        blobs = [part.blob for part in parts if part.blob]
        at_once = session.open < EAGER or bool(frames or blobs)
        # What is only posted needs no protection from Ctrl-C: the call is withdrawn then.
        with deferred_interrupts() if at_once else _UNGUARDED, self._lock:
            number = session.number()
            try:
                messages = session.call(number, targets, op, parts, function, terms, sink)
                if at_once:
                    parcels: list[Parcel] = [(message, ()) for message in messages]
                    parcels[-1] = (messages[-1], frames)
                    self._channel.send_guarded(parcels)
                else:
                    for message in messages:
                        self._channel.post((message, ()))
            except BaseException:  # a label that cannot be sent, no memory, Ctrl-C: the call never was
                session.withdraw(number)
                remove_blobs(parts, self.welcome.shm)
                raise
        if self.lost is not None:  # it may have broken before our call was on the list
            self._fail(self.lost)
            remove_blobs(parts, self.welcome.shm)
        return number

    def _parts(
        self, targets: Sequence[int], payloads: Sequence[list[Any]]
    ) -> tuple[list[m.Part], list[Frame]]:
        if len(payloads) == 1 and len(payloads[0]) == 1 and len(payloads[0][0]) < BIG:
            part, _ = to_part(payloads[0])
            return [part], []
        shm = self.welcome.shm
        engines = self._session.engines
        by_shm = bool(shm) and all(target in engines and engines[target].local for target in targets)
        return to_parts(payloads, shm if by_shm else "")

    def abort(self, calls: Sequence[int], targets: Sequence[int] = (), *, interrupt: bool = False) -> None:
        """Drop *calls* (on *targets* only, if given) where they have not started; or *interrupt* them too."""
        self._check()
        self._channel.send([(m.Abort(list(calls), list(targets), interrupt), ())])

    # ------------------------------------------------------------ requests

    def request(self, make: Callable[[int], m.AnyMessage], timeout: float) -> Any:
        """Send what *make* makes of a number and return the answer to it; see :meth:`query`."""
        self._check()
        session = self._session
        with self._lock:
            number = session.request()
        try:
            self._channel.send([(make(number), ())])
            self._channel.wait(lambda: session.answer(number) is not None or self.lost is not None, timeout)
            answer = session.answer(number)
        finally:
            session.close_request(number)
        if answer is None:
            if self.lost:
                raise self.lost
            raise TimeoutError(f"the controller did not answer within {timeout:g} s")
        if answer.error:
            raise HPCRemoteError(answer.error)
        return answer.data

    # ------------------------------------------------------------ waiting, and the end

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until ``done()`` or the timeout; the calling thread may read the socket meanwhile.

        Returns:
            What ``done()`` says in the end. When the connection is lost, it is asked once more.
        """
        if done():
            return True
        self._check_process()
        return self._channel.wait(lambda: done() or self._told, timeout) and done()

    def wake(self) -> None:
        """Make waiting threads look again."""
        self._channel.wake()

    def close(self) -> None:
        """Close the connection; open calls fail."""
        if self._pid != os.getpid():
            return
        if self.lost is None:
            self.lost = NotConnected("this client is closed")
        self._fail(self.lost)
        self.walltime.close()
        self._channel.close()
        atexit.unregister(self.close)

    def abandon(self) -> None:
        """Close, soon and in another thread.

        For whom the garbage collector may call: in any thread, while that thread holds any lock.
        """
        if self._pid == os.getpid():
            self._channel.abandon()

    def _check(self) -> None:
        if self.lost is not None:
            raise type(self.lost)(*self.lost.args)  # a fresh one: each has a traceback of its own
        self._check_process()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise NotConnected(
                f"this client was connected in process {self._pid} and cannot be used in its fork "
                f"{os.getpid()}: make a new Client there"
            )

    # ------------------------------------------------------------ from the channel

    def _deliver(self, parcels: Sequence[Parcel]) -> None:
        deliveries: list[Delivery] = []
        answers: list[Parcel] = []
        changes: list[m.Engines] = []
        latest: Sink | None = None  # what is delivered last is results for this one, these:
        results: list[tuple[m.Result, Sequence[Frame]]] = []
        landed = self._session.landed
        with self._lock:
            for parcel in parcels:
                message, frames = parcel
                if type(message) is m.Result:
                    taken = self._map(message) if message.part.blob else (message, frames)
                    if (sink := landed(message)) is None:
                        continue
                    if sink is latest:
                        results.append(taken)
                    else:
                        latest, results = sink, [taken]
                        deliveries.append((sink.on_results, (results,)))
                    continue
                if type(message) is m.Engines:
                    changes.append(message)
                    continue
                latest = None
                calls, out = self._session.handle(message, frames)
                deliveries += calls
                answers += [(item, ()) for item in out]
            if changes:
                self._session.change(changes)
        for deliver, arguments in deliveries:
            deliver(*arguments)
        for parcel in answers:
            self._channel.post(parcel)

    def _map(self, result: m.Result) -> tuple[m.Result, Sequence[Frame]]:
        """Turn a result's blob into memory of ours."""
        part = result.part
        shm = self._session.welcome.shm if self._session.welcome else ""
        try:
            sizes = [size for size in part.sizes if size >= BIG]
            return result, read_blob(shm, part.blob, sizes, unlink=True)
        except (PayloadError, OSError) as error:
            remove_blob(shm, part.blob)
            return msgspec.structs.replace(result, status="unreadable", part=m.Part(str(error).encode())), ()

    def _connection_changed(self, connected: bool) -> None:
        if connected or self.lost is not None:
            return
        where = self.connection
        self.lost = NotConnected(
            f"the controller of cluster {where.cluster_id!r} (pid {where.pid} on {where.host}) went away: "
            f"the connection to {self.address} ended. Open calls are lost; `hpcremote status` tells what is "
            "left, and a new Client connects again"
        )
        self._fail(self.lost)

    def _fail(self, error: HPCRemoteError) -> None:
        with self._lock:
            deliveries = self._session.fail_all(error)
        for deliver, arguments in deliveries:
            deliver(*arguments)
        self._told = True


def _tell_of_hanging(message: m.Hanging, name: str) -> None:
    from hpcremote.client.stacks import tell_of_hanging  # which is seldom needed

    tell_of_hanging(message, name)


def no_engines(gone: dict[int, m.Gone]) -> str:
    """Say that there are no engines, and how those that there were went."""
    said = "there are no engines: start some, or wait with Client.wait_for_engines(n)"
    ended = [f"engine {one.id}: {one.cause}" for one in list(gone.values())[:4]]
    return f"{said}; those that there were have ended ({'; '.join(ended)})" if ended else said


def _listed(engines: Iterable[int]) -> str:
    ids = sorted(engines)
    return ", ".join(map(str, ids[:20])) + (" ..." if len(ids) > 20 else "")
