"""The node agent on its descriptors: one thread, one poll. Decides nothing (see ``machine.py``).

::

    bell      a rank has come            ─▶ read the folder
    pidfds    a process ended            ─▶ find out how
    FIFOs     a rank was sent a signal   ─▶ its batch system is about to end the job: say so
    transport the controller asks        ─▶ look, signal
    relay     ranks and the controller   ─▶ hand on (where the agent relays)
    every few seconds                    ─▶ is somebody stopped?
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence

from hpcremote.agent import look
from hpcremote.agent.machine import ODD, Agent
from hpcremote.agent.relay import Relay
from hpcremote.agent.scheduler import time_left
from hpcremote.agent.watch import Watched, last_words
from hpcremote.net.nodes import Node, Rank
from hpcremote.net.transport import Transport
from hpcremote.wire import messages as m
from hpcremote.wire.frames import pack, unpack
from hpcremote.wire.lanes import is_bundle
from hpcremote.wire.walltime import WARNINGS, job_of

_log = logging.getLogger("hpcremote.agent")

#: How often ranks are looked at that say nothing, in seconds.
HEARTBEAT = 5.0
#: The same where the kernel does not tell when a process ends.
WITHOUT_PIDFD = 0.5
#: How long a rank may take to write its stack, and a tool to find all C stacks, in seconds.
PYTHON, NATIVE = 2.0, 10.0
#: While more than this waits for the controller, in bytes, ranks are not read; how often that is looked at.
MOST_WAITING, LOOK_AGAIN = 64 << 20, 0.01


class Server:
    """Runs an :class:`Agent` on the node's folder and a connection, until its ranks are gone.

    Its end is in two steps: :meth:`run` returns when nobody is left, :meth:`close` sends what is on its way.

    Args:
        node: the folder.
        transport: an open connection to the controller; it belongs to the server from now on.
    """

    def __init__(self, node: Node, transport: Transport) -> None:
        self._node = node
        self._transport = transport
        self._machine = Agent(socket.gethostname(), os.getpid())
        self._watched: dict[str, Watched] = {}
        self._by_fd: dict[int, str] = {}
        self._poll = select.epoll()
        self._near = node.connection.is_local
        self._bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        node.bell.unlink(missing_ok=True)
        self._bell.bind(str(node.bell))
        self._poll.register(self._bell, select.EPOLLIN)
        for fd in transport.fds:
            self._poll.register(fd, select.EPOLLIN)
        self._writing = False
        self._beat = 0.0
        self._said: deque[m.AnyMessage] = deque()  # by threads of ours
        self._signals: dict[int, str] = {}  # descriptor of a rank's FIFO → uid
        self._relay = Relay(self._poll, node.link) if node.connection.relayed else None
        if self._relay is not None:
            self._relay.open()

    def signalled(self, number: int) -> None:
        """This process was sent a signal, as all of its batch job were."""
        jobs = {uid: one.rank.job for uid, one in self._watched.items()}
        self._said += self._machine.signalled(number, job_of(os.environ), jobs)
        self._node.ring()

    def run(self) -> None:
        """Serve until the last rank has gone."""
        self._send(self._machine.introduction())
        self._look_around()
        while not self._is_done():
            self._turn()

    def close(self) -> None:
        """Send how the last ranks ended, for a second at most, and close."""
        deadline = time.monotonic() + 1.0
        writable = select.poll()
        writable.register(self._transport.fds[0], select.POLLOUT)
        while self._transport.pending and (left := deadline - time.monotonic()) > 0:
            writable.poll(left * 1000)
            self._transport.flush()
        if self._relay is not None:
            self._relay.shut()
        self._transport.close(1.0)
        self._bell.close()
        self._poll.close()

    def _is_done(self) -> bool:
        if not self._watched:
            self._look_around()  # one that came just now
        return not self._watched

    def _turn(self) -> None:
        waiting = self._transport.pending
        if waiting != self._writing:
            self._writing = waiting
            self._poll.modify(self._transport.fds[0], select.EPOLLIN | (select.EPOLLOUT if waiting else 0))
        blind = any(one.fd < 0 for one in self._watched.values())
        pause = WITHOUT_PIDFD if blind or not self._watched else HEARTBEAT
        for fd, events in self._poll.poll(LOOK_AGAIN if self._is_congested() else pause):
            if fd == self._bell.fileno():
                self._answer_bell()
            elif fd in self._signals:
                self._hand_on_signals(fd)
            elif fd in self._by_fd:
                self._on_end(self._by_fd[fd])
            elif fd in self._transport.fds:
                self._transport.flush()
                self._read(certain=True)
            elif self._relay is not None:
                self._relay.on(fd, events)
        self._pass_on()
        if time.monotonic() - self._beat >= pause:
            self._on_beat()
        self._read(certain=False)

    def _is_congested(self) -> bool:
        if self._relay is None:
            return False
        congested = self._transport.waiting > MOST_WAITING
        self._relay.pause(congested)
        return congested

    def _pass_on(self) -> None:
        if self._relay is not None and (frames := self._relay.take()):
            self._transport.pass_on(frames)

    # ------------------------------------------------------------ the ranks

    def _answer_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(64):
                pass
        while self._said:
            self._send([self._said.popleft()])
        self._look_around()

    def _look_around(self) -> None:
        here = self._node.ranks()
        for uid in self._watched.keys() - {rank.uid for rank in here}:
            if self._watched[uid].rank.lent:  # its program has left the cluster, and goes on
                self._part(uid)
                self._send(self._machine.ended(uid, "", ""))
        new = [rank for rank in here if rank.uid not in self._watched]
        for rank in new:
            watched = self._watched[rank.uid] = Watched(rank)
            if watched.fd >= 0:
                self._by_fd[watched.fd] = rank.uid
                self._poll.register(watched.fd, select.EPOLLIN)
            self._listen_for_signals(rank.uid)
        self._send(self._machine.found([rank.uid for rank in new]))
        for rank in new:
            if not rank.alive():  # also: its pid is another's by now
                self._on_end(rank.uid)

    def _listen_for_signals(self, uid: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # it is in no batch job
            path = self._node.folder / f"{uid}.signals"
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._signals[fd] = uid
            self._poll.register(fd, select.EPOLLIN)

    def _hand_on_signals(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            numbers = os.read(fd, 4096)
            self._send([m.Warned([self._signals[fd]], one) for one in numbers if one in WARNINGS])
            if not numbers:  # its process has ended
                self._forget_signals(self._signals[fd])

    def _forget_signals(self, uid: str) -> None:
        for fd in [fd for fd, one in self._signals.items() if one == uid]:
            del self._signals[fd]
            self._poll.unregister(fd)
            os.close(fd)

    def _part(self, uid: str) -> None:
        """Watch a rank no more."""
        self._forget_signals(uid)
        watched = self._watched.pop(uid)
        if watched.fd >= 0:
            self._poll.unregister(watched.fd)
            del self._by_fd[watched.fd]
        watched.close()

    def _on_end(self, uid: str) -> None:
        watched = self._watched[uid]
        if self._near and not watched.rank.lent:  # the controller reads what it left, and has done so
            cause, output = watched.cause(0.0), ""
        else:
            cause, output = last_words(watched.rank, watched.cause())
        self._part(uid)
        self._node.withdraw(uid)
        if self._relay is not None:
            self._relay.ended(uid)
            self._pass_on()
        self._send(self._machine.ended(uid, cause, output))

    def _on_beat(self) -> None:
        self._beat = time.monotonic()
        for uid, watched in list(self._watched.items()):
            if watched.fd < 0 and watched.has_ended():
                self._on_end(uid)
        seen = {uid: look.state_letter(watched.rank.pid) for uid, watched in self._watched.items()}
        self._send(self._machine.states(seen))

    # ------------------------------------------------------------ the controller

    def _send(self, messages: Sequence[m.AnyMessage]) -> None:
        if messages:
            self._transport.send(pack([(message, ()) for message in messages]))

    def _read(self, *, certain: bool) -> None:
        """Take in all that the controller has sent, and what became of the connection."""
        heard = True
        while heard:
            batches = self._transport.receive(certain=certain)
            certain = False
            for head, frames in batches:
                if self._relay is not None and is_bundle(head):
                    self._relay.deliver(head, frames)
                    continue
                for message, _ in unpack(head, frames):
                    self._receive(message)
            changes = self._transport.changes()
            for connected in changes:
                self._on_change(connected=connected)
            heard = bool(batches or changes)

    def _on_change(self, *, connected: bool) -> None:
        if self._transport.final:
            # The controller's process is gone. The ranks end soon, and are cleared away by us.
            self._poll.unregister(self._transport.fds[0])
        if self._relay is not None and not connected:
            self._relay.shut()
        if connected:
            self._send(self._machine.introduction())
            if self._relay is not None:
                self._relay.open()

    def _receive(self, message: m.AnyMessage) -> None:
        if isinstance(message, m.Look):
            if self._relay is None or message.brief:
                self._send([m.Seen(message.request, self._look(message))])
            else:  # nobody's messages wait for that
                threading.Thread(target=self._look_aside, args=(message,), daemon=True).start()
        elif isinstance(message, m.Signal):
            self._signal(message)
        elif isinstance(message, m.HowLong):
            threading.Thread(target=self._ask_scheduler, args=(message.uid,), daemon=True).start()
        elif isinstance(message, m.Refused):
            _log.warning("the controller refused this agent: %s", message.reason)

    def _look_aside(self, wish: m.Look) -> None:
        self._said.append(m.Seen(wish.request, self._look(wish)))
        self._node.ring()

    def _ask_scheduler(self, uid: str) -> None:
        seconds = time_left(os.environ)
        if seconds is not None:
            self._said.append(m.Remaining(uid, seconds))
            self._node.ring()

    def _ranks(self, uids: Sequence[str]) -> list[Rank]:
        return [self._watched[uid].rank for uid in uids if uid in self._watched]

    def _look(self, wish: m.Look) -> list[m.Sight]:
        ranks = self._ranks(wish.uids)
        if wish.brief:
            return [
                m.Sight(rank.uid, "", ODD.get(look.state_letter(rank.pid), ""), memory=look.memory(rank.pid))
                for rank in ranks
            ]
        texts = look.look(ranks, PYTHON)
        deadline = time.monotonic() + NATIVE
        sights = []
        for rank in ranks:
            left = deadline - time.monotonic()
            text = "no C stack: there was no time left for this rank" if left <= 0.1 else ""
            text = text or look.native(rank.pid, left) if wish.native else ""
            state, note = look.describe(rank.pid), look.note(rank)
            sights.append(m.Sight(rank.uid, texts[rank.uid], state, text, note))
        return sights

    def _signal(self, wish: m.Signal) -> None:
        for rank in self._ranks(wish.uids):
            watched = self._watched[rank.uid]
            try:
                if watched.fd >= 0:  # it cannot reach another process that was given the same pid
                    signal.pidfd_send_signal(watched.fd, wish.number)
                elif rank.alive():
                    os.kill(rank.pid, wish.number)
            except (OSError, ValueError) as error:
                _log.warning("signal %d cannot be sent to process %d: %s", wish.number, rank.pid, error)
