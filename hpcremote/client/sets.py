"""Engine sets: the MPI jobs (or single engines) that a cluster is made of, as views.

::

    Client.set(i), Client.engine_sets ──▶ EngineSet, a DirectView of exactly its engines
                                             └─ restart() ──▶ controller ──▶ the same ids, new processes

A set that has ended is still there, under its number, as long as its ids are free: it says how it ended, and
can be restarted.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcremote.client.comm import base_of
from hpcremote.client.journal import Journal
from hpcremote.client.table import EngineTable
from hpcremote.client.view import DirectView
from hpcremote.errors import EngineError
from hpcremote.wire import messages as m

if TYPE_CHECKING:
    from hpcremote.client.client import Client
    from hpcremote.client.link import Link
    from hpcremote.wire.messages import EngineInfo

Targets = Any
#: How much longer than it was given the controller may take to say that a restart has failed, in seconds.
_ENDING = 15.0


class EngineSet(DirectView):
    """A view of one engine set; of a single engine, too, its results are lists.

    Args:
        client: the client it belongs to.
        number: its place among the sets.
        base: its lowest id.
        size: how many engines it has when it is whole.
        told: its name, as "set", and what else the controller says of it if it has ended.
    """

    def __init__(self, client: Client, number: int, base: int, size: int, told: dict[str, Any]) -> None:
        self._number = number
        self._ids = range(base, base + size)
        self._told = told
        super().__init__(client, "all")
        ended = "cause" in told
        self._frozen = tuple(self._ids) if ended else tuple(info.id for info in self._infos())
        self._infos()

    # ------------------------------------------------------------ what it is

    def _infos(self) -> list[EngineInfo]:
        engines = self.client.link.engines
        here = (engines.get(number) for number in self._ids)
        infos = [one for one in here if one and base_of(one) == self._ids[0] and one.size == len(self._ids)]
        if infos:
            self._told = {"set": infos[0].set_id, "hosts": _unique(infos), "mpi": infos[0].mpi}
        return infos

    @property
    def number(self) -> int:
        """Its place among the sets of the cluster: ``rc.set(number)``."""
        return self._number

    @property
    def set_id(self) -> str:
        """Its name for the controller; a restarted set has another one."""
        self._infos()
        return str(self._told.get("set", ""))

    @property
    def base(self) -> int:
        """The id of its rank 0."""
        return self._ids[0]

    @property
    def alive(self) -> bool:
        """Whether any of its engines is there."""
        return bool(self._infos())

    @property
    def size(self) -> int:
        """How many engines it was started with."""
        return len(self._ids)

    @property
    def ids(self) -> list[int]:
        """The ids of those that are there."""
        return [info.id for info in self._infos()]

    @property
    def ranks(self) -> list[int]:
        """Their ranks in COMM_WORLD; [-1] for an engine without MPI."""
        return [info.rank for info in self._infos()]

    @property
    def hosts(self) -> list[str]:
        """The hosts that it is, or was, on."""
        self._infos()
        return list(self._told.get("hosts", ()))

    @property
    def mpi(self) -> str:
        """The MPI library, in a line; empty without MPI."""
        self._infos()
        return str(self._told.get("mpi", "")).partition("\n")[0]

    @property
    def cause(self) -> str:
        """How it ended; empty while it lives."""
        if self.alive:
            return ""
        if "cause" not in self._told:
            gone = self.client.link.gone
            said = (f"engine {number}: {gone[number].cause}" for number in self._ids if number in gone)
            return next(said, "its engines have ended")
        return str(self._told["cause"])

    @property
    def time_left(self) -> float | None:
        """The seconds until its job ends; None where no limit is known."""
        return self.client.link.walltime.left({self.set_id})

    def _aim(self, targets: Targets = None) -> tuple[Sequence[int], bool]:
        if targets is None and not self.alive:
            raise EngineError(
                f"{self._name} has ended ({self.cause}); restart() starts it again", engine_id=None
            )
        return super()._aim(targets)

    @property
    def _name(self) -> str:
        first, last = self._ids[0], self._ids[-1]
        ids = f"engine {first}" if first == last else f"engines {first} to {last}"
        return f"engine set {self._number} ({ids})"

    def __repr__(self) -> str:
        here = self._infos()
        if not here:
            return f"<EngineSet {self._number}: {self._name.partition('(')[2][:-1]}, ended: {self.cause}>"
        lost = f", {len(self._ids) - len(here)} of them lost" if len(here) < len(self._ids) else ""
        where = ", ".join(self.hosts[:3]) + (", ..." if len(self.hosts) > 3 else "")
        kind = self.mpi or "no MPI"
        return f"<EngineSet {self._number}: {self._name.partition('(')[2][:-1]}{lost}, {kind}, on {where}>"

    # ------------------------------------------------------------ restarting

    def restart(self, timeout: float = 60.0, replay: bool = False) -> EngineSet:
        """End its processes, stuck or dead as they may be, and start it again under the same ids.

        Namespaces are new. Calls that are pending fail with an ``EngineError`` that says so.

        Args:
            timeout: seconds for all of it.
            replay: then run again, in order, what this client has run there by ``execute``, ``run`` and
                ``sync_imports``, except for what failed. What fails now is told in a warning.

        Returns:
            The set itself.

        Raises:
            HPCRemoteError: it cannot be done, and why: it was started by hand, its ids went to another
                set, or the new engines did not start.
            TimeoutError: the controller did not answer.
        """
        client = self.client
        set_id = self.set_id
        client.link.request(lambda number: m.Restart(number, set_id, timeout), timeout + _ENDING)
        self._frozen = tuple(self._ids)
        entries = client.journal.take(self._ids)
        if not replay:
            return self
        if client.journal.forgotten:
            lost = client.journal.forgotten
            warnings.warn(f"replay: the first {lost} pieces of code are no longer kept", stacklevel=2)
        results = [
            self._execute(
                entry.code, entry.filename, silent=True, targets=entry.ids, block=False, label="replay"
            )
            for entry in entries
        ]
        errors = [(result.exception(), entry.code) for result, entry in zip(results, entries, strict=True)]
        failed = [f"{_first_line(code)!r}: {error}" for error, code in errors if error is not None]
        if failed:
            said = "; ".join(failed)
            warnings.warn(f"replay: {len(failed)} of {len(entries)} failed: {said}", stacklevel=2)
        return self


class Sets:
    """The part of :class:`hpcremote.Client` that is about engine sets."""

    link: Link
    journal: Journal

    def _engines(self) -> dict[int, EngineInfo]:
        raise NotImplementedError

    @property
    def engine_sets(self) -> list[EngineSet]:
        """The engine sets by their lowest id; with those that have ended, as long as their ids are free."""
        found: dict[int, tuple[int, dict[str, Any]]] = {}
        for info in self._engines().values():  # it may have gone when it is looked at
            found.setdefault(base_of(info), (info.size, {"set": info.set_id}))
        for row in self.link.query("ended sets"):
            found.setdefault(row["base"], (row["size"], row))
        return [
            EngineSet(self, number, base, *found[base])  # type: ignore[arg-type]
            for number, base in enumerate(sorted(found))
        ]

    def set(self, number: int) -> EngineSet:
        """Return an engine set by its place in :attr:`engine_sets`.

        Raises:
            IndexError: there are not so many.
        """
        sets = self.engine_sets
        if not -len(sets) <= number < len(sets):
            raise IndexError(
                f"there is no engine set {number}; there are {len(sets)}, see Client.engine_sets"
            )
        return sets[number]

    def by_host(self) -> dict[str, DirectView]:
        """Return a view of the engines of each host, by its name."""
        hosts: dict[str, list[int]] = {}
        for info in self._engines().values():
            hosts.setdefault(info.host, []).append(info.id)
        return {host: DirectView(self, ids) for host, ids in hosts.items()}  # type: ignore[arg-type]

    def info(self) -> EngineTable:
        """Return a table of the engines: where they are, what they are at, of which Python and MPI library.

        ``set`` is the number by which :meth:`set` gives it. ``memory``, the resident set, and whether an
        engine is stopped, are seen now by the node agents, also of engines that are at work or stuck. Where
        no agent answers within a second, or is there yet, ``memory`` is empty.
        """
        numbers = {one.base: one.number for one in self.engine_sets}
        engines = self._engines().values()
        status = self.link.query("queue_status")["engines"]
        for engine, seen in self.link.query("processes").items():
            status.get(engine, {}).update(seen)
        return EngineTable(engines, numbers, status, self.link.walltime.left)


def _unique(infos: Sequence[EngineInfo]) -> list[str]:
    return list(dict.fromkeys(info.host for info in infos))


def _first_line(code: str) -> str:
    return next((line for line in code.splitlines() if line.strip()), "")[:60]
