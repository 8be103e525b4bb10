"""The client: finds a controller, knows its engines, gives views of them.

::

    Client ──▶ views ──launch──▶ link ──▶ controller
       │                           │
       └─ memory of its calls ◀────┴─ results
"""

from __future__ import annotations

import operator
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from hpcremote.client.absent import ABSENT
from hpcremote.client.arguments import connect, end_tunnel, refuse, through
from hpcremote.client.calls import Calls, Targets, seconds
from hpcremote.client.flight import Flight
from hpcremote.client.journal import Journal
from hpcremote.client.link import Link, no_engines
from hpcremote.client.machine import PLAIN, Terms
from hpcremote.client.memory import Memory
from hpcremote.client.progress import in_ipython, progress_bar
from hpcremote.client.result import AsyncResult
from hpcremote.client.sets import Sets
from hpcremote.client.strict import Strict
from hpcremote.client.view import DirectView
from hpcremote.client.walltime import Ends
from hpcremote.connection import Connection
from hpcremote.errors import NoEnginesRegistered

if TYPE_CHECKING:
    from typing_extensions import Self

    from hpcremote.wire.functions import PackedFunction
    from hpcremote.wire.messages import EngineInfo
    from hpcremote.wire.pickler import Buffer


class Client(Strict, Sets, Ends, Calls):
    """A connection to a cluster.

    ``Client()`` finds the running cluster of the default profile, ``Client(profile="mpi")`` that of another
    one, ``Client("client.json")`` connects with a connection file, which may come from another machine::

        with Client(profile="mpi") as rc:
            rc.ids               # [0, 1, 2, 3]
            rc[:].apply_sync(os.getpid)

    Args:
        connection_info: path or contents of a connection file; default: look for a running cluster.
        url_file: the same as *connection_info*.
        profile: the profile whose cluster to look for.
        cluster_id: which of its clusters.
        timeout: seconds to wait for the controller.
        sshserver: ``user@host:port``: go by ssh to that machine, which can reach the controller. Without
            *connection_info* its cluster is looked for, and its keys are fetched, there.
        sshkey: file of the private key for that (default: what ``ssh`` finds).
        ssh: the ssh command (default: ``$HPCREMOTE_SSH``, else ``ssh``).
        cluster: the Cluster that this is a client of.
        debug: no meaning here.
        link: an open connection to use instead of making one; not for users.
        **unsupported: arguments of ipyparallel's Client that have no counterpart.

    Attributes:
        block: whether views made from now on wait for their results.
        cluster: the Cluster that this is a client of, or None.
        link: the connection; not for users.
        journal: the code it has executed, for ``EngineSet.restart``; not for users.
        tunnel: the ssh tunnel that it goes by, or None.

    Raises:
        ClusterNotFound: no such cluster runs here.
        NotConnected: no controller answers at the addresses in the connection file.
    """

    settable = ("block", "cluster", "debug", "journal", "link", "profile", "tunnel")
    block = False

    def __init__(  # noqa: PLR0913 - the names of ipyparallel's Client
        self,
        connection_info: str | os.PathLike[str] | Mapping[str, Any] | Connection | None = None,
        *,
        url_file: str | os.PathLike[str] | None = None,
        profile: str | None = None,
        cluster_id: str | None = None,
        timeout: float = 10.0,
        sshserver: str | None = None,
        sshkey: str | os.PathLike[str] | None = None,
        ssh: str | Sequence[str] | None = None,
        cluster: Any = None,
        debug: bool = False,
        link: Link | None = None,
        **unsupported: Any,
    ) -> None:
        refuse(unsupported)
        info = connection_info if connection_info is not None else url_file
        if seconds(timeout) is None:
            raise ValueError(f"timeout has to be seconds, not {timeout!r}: a controller may be away")
        self.tunnel = through(sshserver, sshkey, ssh) if sshserver else None
        self.link = link or connect(info, profile, cluster_id, timeout, self.tunnel)
        self.link.walltime.tell()
        self._memory = Memory(self.link.uid)
        self._keep = self._memory.landed  # one bound method for all calls
        self.journal = Journal()
        self._abandon = weakref.finalize(self, self.link.abandon)
        self._abandon.atexit = False  # the link closes itself then
        if self.tunnel is not None:
            weakref.finalize(self, self.tunnel.abandon).atexit = False
        self.profile = profile
        self.cluster = cluster
        self.debug = debug

    # ------------------------------------------------------------ engines and views

    @property
    def ids(self) -> list[int]:
        """The ids of the engines, in order.

        Raises:
            NotConnected: the controller went away, so nobody knows; or this client is closed.
        """
        return sorted(self._engines())

    def _engines(self) -> dict[int, EngineInfo]:
        """Return the engines that are known to live; once the connection is lost nothing is known."""
        lost = self.link.lost
        if lost is not None:
            raise type(lost)(*lost.args)  # a fresh one: each has a traceback of its own
        return self.link.engines

    def __len__(self) -> int:
        return len(self._engines())

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Client cannot be pickled: make one where it is needed")

    def __iter__(self) -> Iterator[DirectView]:
        for engine in self.ids:
            yield self.direct_view(engine)

    def __getitem__(self, key: int | slice | Sequence[int]) -> DirectView:
        if isinstance(key, str) or not (
            hasattr(key, "__index__") or isinstance(key, (slice, list, tuple, range))
        ):
            raise TypeError(f"engines are named by an int, a slice or a list of ints, not {key!r}")
        return self.direct_view(key)

    def direct_view(self, targets: Targets = "all", **flags: Any) -> DirectView:
        """Return a view of some engines.

        Args:
            targets: an id, a list of ids, a slice of the ids, or ``'all'``: whoever is there at each call
                (``rc[:]`` is whoever is there now).
            **flags: ``block``, ``label``, ``track`` of the view.
        """
        return DirectView(self, targets, **flags)

    def broadcast_view(
        self, targets: Targets = "all", is_coalescing: bool = False, **flags: Any
    ) -> DirectView:
        """Return a view: every view sends one message for all its engines here."""
        return DirectView(self, self.ids if targets == "all" else targets, **flags)

    def resolve(self, targets: Targets) -> tuple[list[int], bool]:
        """Return the ids that *targets* names, and whether it names one engine rather than a list.

        Raises:
            NoEnginesRegistered: there are no engines.
            IndexError: there is no such engine; the message says which there are.
        """
        ids = self.ids
        if not ids:
            raise NoEnginesRegistered(no_engines(self.link.gone))
        if targets is None or (isinstance(targets, str) and targets == "all"):
            return ids, False
        if isinstance(targets, slice):
            return ids[targets], False
        if hasattr(targets, "__index__") and not getattr(targets, "ndim", 0):  # an array has one, too
            return [_pick(ids, operator.index(targets))], True
        if isinstance(targets, str) or not isinstance(targets, Iterable):
            raise TypeError(f"engines are named by an int, a slice, a list of ints or 'all', not {targets!r}")
        here = self.link.engines
        numbers = [operator.index(target) for target in targets]
        picked = [number if number in here else _pick(ids, number) for number in numbers]
        if len(set(picked)) < len(picked):
            raise ValueError(f"a view has every engine once, not {picked}")
        return picked, False

    def wait_for_engines(
        self,
        n: int | None = None,
        *,
        timeout: float | None = -1,
        block: bool = True,
        interactive: bool | None = None,
        widget: bool | None = None,
    ) -> Future[None] | None:
        """Wait until there are *n* engines.

        Args:
            n: how many (default: as many as the client's Cluster starts).
            timeout: seconds; None or a negative number waits without limit.
            block: False returns a Future instead of waiting.
            interactive: show progress (default: in IPython).
            widget: show it as a widget (default: in notebooks).

        Raises:
            TimeoutError: there are fewer when the time is over.
        """
        wanted = n if n is not None else getattr(self.cluster, "n", None)
        if wanted is None or not hasattr(wanted, "__index__"):
            raise TypeError(f"wait_for_engines() must be told how many engines to wait for, not {wanted!r}")
        if not block:
            return _in_thread(self._wait_for_engines, wanted, timeout)
        if len(self.link.engines) < wanted and (interactive or (interactive is None and in_ipython())):
            timeout = self._show_engines_coming(wanted, timeout, widget)
        self._wait_for_engines(wanted, timeout)
        return None

    def _show_engines_coming(self, wanted: int, timeout: float | None, widget: bool | None) -> float | None:
        """Show progress until the engines are there or the time is over; return the time that is left."""
        left = seconds(timeout)
        deadline = None if left is None else time.monotonic() + left
        with progress_bar(wanted, "engines", widget=widget) as bar:
            while len(self.link.engines) < wanted and self.link.lost is None and left != 0:
                bar.update(len(self.link.engines))
                self.link.wait(
                    lambda: len(self.link.engines) >= wanted, 0.2 if left is None else min(0.2, left)
                )
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
            bar.update(min(len(self.link.engines), wanted))
        return left

    def _wait_for_engines(self, wanted: int, timeout: float | None) -> None:
        if not self.link.wait(lambda: len(self.link.engines) >= wanted, seconds(timeout)):
            if self.link.lost is not None:
                raise self.link.lost
            raise TimeoutError(
                f"{len(self.link.engines)} of {wanted} engines were there when the time to wait was over"
            )

    # ------------------------------------------------------------ calls

    def launch(
        self,
        op: str,
        payloads: Sequence[list[Buffer]],
        name: str,
        ids: Sequence[int],
        *,
        function: PackedFunction | None = None,
        terms: Terms = PLAIN,
        kind: type[Flight] = Flight,
    ) -> Flight:
        """Send one call to some engines; views use this."""
        link = self.link
        flight = kind(
            uid=link.uid,
            method=op,
            name=name,
            label=terms.label or None,
            targets=ids,
            engines=link.engines,
            keep=self._keep,
        )
        flight.call = link.submit(
            ids,
            op,
            payloads,
            function=function,
            terms=terms,
            sink=flight,
        )
        self._memory.add(flight)
        return flight

    # ------------------------------------------------------------ control

    def clear(self, targets: Targets = None, block: bool | None = None) -> AsyncResult | None:
        """Empty the namespaces of engines (default: all)."""
        view = self.direct_view("all" if targets is None else targets)
        return view.clear(block=self.block if block is None else block)

    def queue_status(self, targets: Targets = "all", verbose: bool = False) -> dict[Any, Any]:
        """Return for each engine how many calls it has before it (``queue``) and behind it (``completed``).

        ``state`` is there if an engine's process has been stopped for some seconds (``stopped``), or hangs in
        the kernel (``waiting for I/O``).

        Args:
            targets: engines; one id returns its figures alone.
            verbose: no meaning here.
        """
        status = self.link.query("queue_status", 10.0)
        told: dict[Any, Any] = {int(engine): figures for engine, figures in status["engines"].items()}
        if not (isinstance(targets, str) and targets == "all"):
            ids, single = self.resolve(targets)
            if single:
                figures: dict[Any, Any] = told[ids[0]]
                return figures
            told = {engine: told[engine] for engine in ids}
        told["unassigned"] = status.get("unassigned", 0)
        return told

    def shutdown(
        self, targets: Targets = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """End engines; with *hub* the controller and with it everything.

        Raises:
            NotImplementedError: *restart* is asked for.
        """
        if restart:
            raise NotImplementedError(
                "shutdown() does not restart: Client.set(0).restart() does, for a whole engine set"
            )
        everything = isinstance(targets, str) and targets == "all"
        ids = self.ids if everything else self.resolve(targets)[0]
        self.link.shutdown(ids, controller=hub, timeout=10.0)
        if block or (block is None and self.block):
            self.link.wait(lambda: not self.link.engines.keys() & set(ids), 30.0)
        if hub:
            self.close()

    def spin(self, interval: float = 0) -> None:
        """Do nothing: results arrive by themselves."""

    spin_thread = stop_spin_thread = spin

    # ------------------------------------------------------------ the end

    def close(self, linger: float | None = None) -> None:
        """End the connection. Calls that have not finished fail here; the engines finish them."""
        self._abandon.detach()
        self.link.close()
        end_tunnel(self.tunnel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT:
            raise AttributeError(f"hpcremote's Client has no {name}: {ABSENT[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        if self.link.lost is not None:
            return f"<Client of cluster {self.link.cluster_id}: not connected>"
        return f"<Client of cluster {self.link.cluster_id}: {len(self)} engines>"


def _pick(ids: list[int], target: int) -> int:
    """Return the engine that *target* names; negative ones count from the end."""
    if target < 0 and -target <= len(ids):
        return ids[target]
    if target not in ids:
        shown = ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
        raise IndexError(f"there is no engine {target}; there are: {shown}")
    return target


def _in_thread(call: Any, *args: Any) -> Future[None]:
    future: Future[None] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args))
        except BaseException as error:  # noqa: BLE001 - handed to who waits
            future.set_exception(error)

    threading.Thread(target=run, name="hpcremote-wait", daemon=True).start()
    return future
