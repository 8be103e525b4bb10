"""More engine sets, fewer, and the next job of one.

That is submitted while the set still works, which hands over when it is there::

    extend() ──job──▶ queue ──▶ its ranks wait at the controller
                      the old set: save, Stop ──▶ the new one has its ids ──▶ load
"""

from __future__ import annotations

import contextlib
import operator
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hpcremote import stopping
from hpcremote.errors import ConfigError, HPCRemoteError, LaunchError, NotConnected
from hpcremote.launch import adding
from hpcremote.launch.attempt import attempt
from hpcremote.launch.batch import more
from hpcremote.launch.watch import Progress, Watch

if TYPE_CHECKING:
    from hpcremote.client.client import Client
    from hpcremote.client.link import Link
    from hpcremote.client.sets import EngineSet
    from hpcremote.profile import Profile

#: How often it is looked how far the job is, in seconds.
_LOOK_AGAIN = 0.2


class Extending:
    """The part of :class:`hpcremote.Cluster` about sets that come and go, and go on in another job."""

    profile: Profile
    cluster_id: str
    n: int
    _given_up: threading.Event
    _clients: weakref.WeakSet[Client]

    def connect_client(self, **options: Any) -> Client:
        """Return a new client of this cluster."""
        raise NotImplementedError

    def _link(self) -> Link:
        raise NotImplementedError

    def _tell(self, seen: Progress) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------ more sets, fewer sets

    def start_engines(self, n: int | None = None) -> None:
        """Start one more engine set, as the first one was: as a job, on the profile's hosts, or here.

        Return when its *n* engines (default: as many as at first) are there, and clients that were had from
        this object know them. They stay with the cluster.

        A job has as many engines a node as the profile says, on as many nodes as that takes.

        Raises:
            ConfigError: *n* is no number of engines.
            LaunchError: the cluster does not run, or not here, or the set did not start, and why.
        """
        count = self.n if n is None else checked_count(n)
        link = self._link()
        try:
            before, known = len(link.engines), link.query("info")["failed"]
        finally:
            link.close()
        kind = more.More if self.profile.scheduler else adding.Here
        begun = kind(self.profile, self.cluster_id, count, before=before, known=known)
        self._given_up.clear()
        with attempt(begun.abandon):
            begun.launch()
            Watch(begun, self._link, self._tell, self._given_up).run()
        begun.ready()
        self._have_clients_hear()

    def stop_engines(self, number: int) -> None:
        """End an engine set, ``Client.set(number)``, and its job if it is one; the others go on.

        Raises:
            IndexError: there is no such set.
            LaunchError: it cannot be ended, or not from here.
        """
        stopping.stop_set(self.profile.name, self.cluster_id, number, timeout=self.profile.stop_timeout)
        self._have_clients_hear()

    def _have_clients_hear(self) -> None:
        """Return when the clients that were had from here know of it: an answer comes after such news."""
        for client in list(self._clients):
            with contextlib.suppress(HPCRemoteError, TimeoutError):
                client.link.query("info")

    # ------------------------------------------------------------ the next job

    def extend(self, number: int = 0, *, save: str | os.PathLike[str] | None = None) -> None:
        """Start the next job of an engine set, ``Client.set(number)``; return when that has taken its place.

        The set works on while the job is in the queue, if its own has not ended. Then it ends, and the new
        engines have its ids.

        Args:
            number: which set.
            save: where namespaces are saved before the set ends (see ``DirectView.save``), and from where
                they are put back; of a set that has ended, what was saved there is. None: neither.

        Raises:
            IndexError: there is no such set.
            LaunchError: the cluster's engines are no jobs, or the new ones did not start; then the set is as
                it was.
            SaveError, CompositeError: it could not be saved: the set works on, and the new job is ended; or
                what was saved could not be put back.
        """
        with self.connect_client() as rc:
            chosen = rc.set(number)
            former, folder = chosen.set_id, "" if save is None else os.path.abspath(os.path.expanduser(save))
            old = rc.link.query("jobs").get(former, "")
            known = rc.link.query("info")["failed"]
            begun = more.More(self.profile, self.cluster_id, chosen.size, known=known)
            more.check_apart(begun.folder, old)
            self._given_up.clear()
            with attempt(begun.abandon), _told_that_it_is_stopped(begun):
                begun.launch(replaces=former)
                self._await(rc, chosen, former, begun)
                if folder and chosen.set_id == former and chosen.alive:
                    chosen.save(folder, block=True)
                self._hand_over(rc, chosen, former, begun)
            begun.ready()
            if old:
                more.end(begun.folder, old)
            if folder:
                chosen.load(folder, block=True)
        self._have_clients_hear()

    def _await(self, rc: Client, chosen: EngineSet, former: str, begun: more.More) -> None:
        """Wait until the new ranks are at the controller."""
        began = clock = time.monotonic()
        told: tuple[str, str] = ("", "")
        while chosen.set_id == former or not chosen.alive:
            info = rc.link.query("info")
            if info["starting"].get("joined", 0) >= begun.n and chosen.alive:
                return
            if self._given_up.is_set():
                raise LaunchError("the start was given up")
            if (trouble := begun.trouble()) is not None:
                raise trouble
            if failed := [row for row in info["failed"] if row not in begun.known]:
                raise begun.failure(f"an engine of the next job failed: {failed[0]}")
            standing = begun.standing()
            if standing is not None and (standing.phase, standing.detail) != told:
                told = (standing.phase, standing.detail)
                self._tell(Progress(standing.phase, 0, begun.n, time.monotonic() - began, standing.detail))
            clock = time.monotonic() if begun.waiting else clock
            if time.monotonic() - clock > self.profile.start_timeout:
                limit = self.profile.start_timeout
                raise begun.failure(
                    f"the next job's engines were not there within {limit:g} s (start_timeout)"
                )
            rc.link.wait(lambda: chosen.set_id != former, _LOOK_AGAIN)

    def _hand_over(self, rc: Client, chosen: EngineSet, former: str, begun: more.More) -> None:
        """End the old set: the new one, which waits, gets its ids."""
        if chosen.set_id == former and (ids := chosen.ids):
            rc.link.shutdown(ids, controller=False)
        limit = self.profile.start_timeout

        def is_there() -> bool:
            return chosen.set_id != former and len(chosen.ids) == chosen.size

        if not rc.link.wait(is_there, limit):
            raise begun.failure(f"the next job's engines did not take over within {limit:g} s")


@contextlib.contextmanager
def _told_that_it_is_stopped(begun: more.More) -> Iterator[None]:
    """Have the loss of the controller said as what it is, if somebody stops the cluster meanwhile."""
    try:
        yield
    except NotConnected as error:
        raise begun.failure(str(error)) from error


def checked_count(n: object, what: str = "an engine set") -> int:
    """Return how many engines *what* is to have.

    Raises:
        ConfigError: it is none.
    """
    try:
        count = 0 if isinstance(n, bool) else operator.index(n)  # type: ignore[arg-type]
    except TypeError:
        count = 0
    if count < 1:
        raise ConfigError(f"n is {n!r}: {what} needs a whole number of engines, at least 1")
    return count
