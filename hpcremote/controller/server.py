"""The controller on its sockets: happenings in, actions out. Decides nothing (see ``machine.py``)."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import cast

from hpcremote.controller.events import (
    Action,
    Back,
    End,
    Event,
    Forget,
    Inquire,
    Log,
    Lost,
    Opened,
    Rejoined,
    Relaunch,
    Send,
    Severed,
    Tick,
    Unlink,
)
from hpcremote.controller.inquire import Inquirer, Inquiries
from hpcremote.controller.machine import Controller
from hpcremote.controller.relaunch import Relauncher, Relaunches
from hpcremote.controller.roster import CONTROLLER_ALONE, CONTROLLER_BY_SCHEDULER
from hpcremote.ids import is_uid
from hpcremote.net import happenings
from hpcremote.net.happenings import Came, Got, Happening, Peer, Went
from hpcremote.net.hub import Hub
from hpcremote.net.keys import RateLimit
from hpcremote.net.shm import remove_blob
from hpcremote.wire.frames import Parcel
from hpcremote.wire.lastwords import SILENT, cause_of, for_people
from hpcremote.wire.walltime import FINAL, WARNINGS

_log = logging.getLogger("hpcremote.controller")

#: How much of a dead engine's output is kept, in characters.
TAIL = 4_000
#: How much of its files is read: the names of a crashed engine's extension modules alone may be long.
_READ = 65_536
#: How an MPI launcher ends the ranks that are left when one has died.
ENDED_BY_OTHERS = (SILENT, "terminated by SIGTERM")
#: Longer lines of the log are cut.
LINE = 4_000
_TICK = Tick()


class Server:
    """Runs a :class:`Controller` on a :class:`Hub` until it ends.

    Args:
        machine: the rules.
        hub: the sockets.
        shm: the cluster's shared-memory folder, or "".
        words: folder in which local engines leave their output and last words.
        relauncher: starts an engine set again; None where nobody can.
        inquirer: asks a batch system what became of a job; None where nobody can.
        in_job: whether this process is in a batch system's job, which ends it by SIGTERM.
    """

    def __init__(
        self,
        machine: Controller,
        hub: Hub,
        *,
        shm: str,
        words: str,
        relauncher: Relauncher | None = None,
        inquirer: Inquirer | None = None,
        in_job: bool = False,
    ) -> None:
        self._in_job = in_job
        self._machine = machine
        self._hub = hub
        self._shm = shm
        self._words = words
        self._signal = ""
        self._done = False
        self._outbox: dict[Peer, list[Parcel] | tuple[Parcel, ...]] = {}
        self._complaints = RateLimit()
        self._relaunches = Relaunches(relauncher, self._wake)
        self._inquiries = Inquiries(inquirer, self._wake)
        self._wakes = threading.Lock()
        self._wakeable = True

    def run(self) -> None:
        """Serve until a client, SIGTERM or SIGINT ends the cluster."""
        self._take_signals()
        try:
            while not self._done:
                self._turn()
        finally:
            signal.set_wakeup_fd(-1)  # the hub's descriptor is about to be closed
            with self._wakes:
                self._wakeable = False

    def _wake(self) -> None:
        """Make the loop turn, if it still does; called by other threads."""
        with self._wakes:
            if self._wakeable:
                os.write(self._hub.wake_fd, b"\0")

    def _turn(self) -> None:
        deadline = self._machine.deadline()
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        happened = self._hub.poll(timeout)
        now = time.monotonic()
        if went := self._take_in(happened, now):
            self._take_in(self._departures(went), now)
        self._take_in([*self._relaunches.news(), *self._inquiries.ended()], now)
        if self._signal:
            self._heed(now)
        else:
            self._carry_out(self._machine.handle(_TICK, now))  # once for all that has happened
        self._flush()

    def _heed(self, now: float) -> None:
        """Do what a signal asks for."""
        name, self._signal = self._signal, ""
        if not self._in_job or name == "SIGINT":
            self._carry_out(self._machine.end(f"{name} received", now))
        elif name == "SIGHUP":  # by the job's script
            self._carry_out(self._machine.told_to_end(CONTROLLER_ALONE, now, ranks_ended=True))
        else:
            self._carry_out(self._machine.told_to_end(f"{CONTROLLER_BY_SCHEDULER} ({name})", now))

    def _take_signals(self) -> None:
        def note(signum: int, _frame: FrameType | None) -> None:
            # By SIGHUP the job's script says that the ranks have ended: no news after another signal.
            if signum != signal.SIGHUP or not self._signal:
                self._signal = signal.Signals(signum).name

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, note)
        if self._in_job:
            for number in FINAL:
                signal.signal(number, note)
            for number in set(WARNINGS) - set(FINAL):  # to all of the job: they are for the engines
                signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._hub.wake_fd, warn_on_full_buffer=False)

    def _take_in(self, happened: Iterable[Happening | Event], now: float) -> list[Peer]:
        """Let the machine have what has happened, but for departures: return who went."""
        receive, take_in = self._machine.receive, self._machine.take_in
        went: list[Peer] = []
        for what in happened:
            try:
                if type(what) is Got:
                    receive(what.peer, what.message, what.frames, now)
                elif type(what) is Went:
                    went.append(what.peer)
                else:
                    take_in(_event(what), now)
            except Exception:  # noqa: BLE001 - it is logged, and
                # one peer's odd message must not end everybody's cluster.
                _log.exception("the controller could not handle %r", type(what).__name__)
        return went

    def _departures(self, peers: Sequence[Peer]) -> list[Lost]:
        """Return who went. Those who say why come first: an MPI launcher then killed the others."""
        lost = [Lost(peer, *self._autopsy(self._machine.engine_uid(peer))) for peer in peers]
        return sorted(lost, key=lambda one: one.cause.startswith(ENDED_BY_OTHERS))

    def _carry_out(self, actions: Iterable[Action]) -> None:
        outbox = self._outbox
        shared: tuple[Parcel, ...] = ()
        message, frames = None, None
        for action in actions:
            if type(action) is not Send:
                self._do(action)
                continue
            peer: Peer = action.peer  # type: ignore[assignment]  # the machine does not look into it
            waiting = outbox.get(peer)
            if waiting is None:
                # The same to many, one after the other, is one tuple: one look is enough then (net/relay.py).
                if action.message is not message or action.frames is not frames:
                    message, frames = action.message, action.frames
                    shared = ((message, frames),)
                outbox[peer] = shared
            elif type(waiting) is list:
                waiting.append((action.message, action.frames))
            else:
                outbox[peer] = [*waiting, (action.message, action.frames)]

    def _do(self, action: Action) -> None:
        """Carry out what is not to be sent."""
        if isinstance(action, Log):
            self._say(action)
        elif isinstance(action, Unlink):
            remove_blob(self._shm, action.blob)
        elif isinstance(action, (Relaunch, Back, Inquire)):
            self._have_done(action)
        elif isinstance(action, Forget):
            self._hub.forget(cast("Peer", action.peer))
        elif isinstance(action, End):
            _log.info("ended: %s", action.reason)
            self._done = True

    def _have_done(self, order: Relaunch | Back | Inquire) -> None:
        """Others do this, in threads."""
        if isinstance(order, Relaunch):
            self._relaunches.start(order)
        elif isinstance(order, Back):
            self._relaunches.back(order)
        else:
            self._inquiries.start(order)

    def _say(self, log: Log) -> None:
        text = log.text if log.text.isprintable() else ascii(log.text)  # a peer's words stay on their line
        text = text[:LINE]
        if not log.complaint:
            _log.info(text)
        elif text := self._complaints.admit(time.monotonic(), text):
            _log.warning(text)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, {}
        if outbox:
            self._hub.send_all(outbox.items())
        for peer in self._hub.stalled:
            self._cut_client(peer)

    def _cut_client(self, peer: Peer) -> None:
        """What waits for a client that does not read (it is stopped, perhaps) must not fill the memory."""
        client = self._machine.clients.get(peer)
        if client is not None:  # an engine may be busy for as long as it likes
            pid = client.hello.pid
            _log.warning(
                "%s (pid %d) is disconnected: it does not read, and too much waits", client.name, pid
            )
            self._hub.cut(peer)

    def _autopsy(self, uid: str) -> tuple[str, str]:
        """Return how a local engine died and the last it wrote; empty for others."""
        if not self._words or not is_uid(uid):  # anything else might be a path out of the folder
            return "", ""
        errors = _tail(Path(self._words) / f"{uid}.err")
        if errors is None:
            return "", ""
        output = _tail(Path(self._words) / f"{uid}.out") or ""
        for suffix in ("err", "out", "stacks", "notes"):
            (Path(self._words) / f"{uid}.{suffix}").unlink(missing_ok=True)
        written = [text[-TAIL:].strip("\0\n") for text in (output, for_people(errors))]
        return cause_of(errors), "\n".join(filter(None, written))


def _event(what: Happening | Event) -> Event:
    if isinstance(what, Came):
        return Opened(what.peer, what.role, what.local)
    if isinstance(what, happenings.Severed):
        return Severed(what.peer)
    if isinstance(what, happenings.Rejoined):
        return Rejoined(what.peer)
    return cast("Event", what)


def _tail(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _READ))
            return file.read().decode(errors="replace")
    except OSError:
        return None
