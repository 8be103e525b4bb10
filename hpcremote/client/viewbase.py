"""What every view has: its flags, its targets, ``apply``, and the client's methods for its engines."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from hpcremote.client.comm import CommInfo, comm_of
from hpcremote.client.flight import Flight
from hpcremote.client.machine import Terms
from hpcremote.client.memory import HISTORY
from hpcremote.client.remotefunction import ParallelFunction, RemoteFunction, name_of, plain_function
from hpcremote.client.result import AsyncResult
from hpcremote.client.strict import Strict
from hpcremote.files import did_you_mean
from hpcremote.wire import functions, payload
from hpcremote.wire.pickler import Buffer

if TYPE_CHECKING:
    from typing_extensions import Self

    from hpcremote.client.client import Client

Targets = Any
FLAGS = ("targets", "block", "track", "label", "grace", "needs")


class View(Strict):
    """Base of views: flags, targets, ``apply``.

    Attributes:
        client: the client it belongs to.
        block: whether calls wait for their results.
        track: accepted for scripts written for ipyparallel.
        label: a name that calls carry in their metadata.
        grace: when a call has failed on one engine, after how many seconds others that wait for it in MPI are
            released (None: the profile's ``collective_grace``; ``math.inf``: never).
        needs: minutes that the engines' job has to last; a call on engines that have less is begun on none of
            them, and raises ``NotEnoughTime``.
    """

    settable = (*FLAGS, "client")
    client: Client
    block: bool
    grace: float | None = None
    needs: float | None = None
    track: bool
    label: str | None
    _history: deque[tuple[int, Sequence[int]]]
    #: A view has names, not items.
    __iter__ = None

    def __init__(
        self,
        client: Client,
        targets: Targets = "all",
        *,
        block: bool | None = None,
        track: bool = False,
        label: str | None = None,
    ) -> None:
        vars(self).update(  # unchecked: these are right, and many views are made
            client=client,
            block=client.block if block is None else block,
            track=track,
            label=label,
            _history=deque(maxlen=HISTORY),
        )
        self.targets = targets

    # ------------------------------------------------------------ targets and flags

    @property
    def targets(self) -> Targets:
        """The engines; one id, a list of ids, or ``'all'``, which is looked up at every call."""
        if self._frozen is None:
            return "all"
        return self._frozen[0] if self._single else list(self._frozen)

    @targets.setter
    def targets(self, targets: Targets) -> None:
        if isinstance(targets, str) and targets == "all":
            self._frozen: tuple[int, ...] | None = None
            self._single = False
        else:
            ids, self._single = self.client.resolve(targets)
            self._frozen = tuple(ids)

    def _aim(self, targets: Targets = None) -> tuple[Sequence[int], bool]:
        """Return the engine ids for a call, and whether its result is one value."""
        if targets is None:
            if self._frozen is not None:
                return self._frozen, self._single
            targets = "all"
        return self.client.resolve(targets)

    @property
    def comm(self) -> CommInfo:
        """What its calls have as ``hpcremote.comm()``: size, ranks in view order, whether it is a whole set.

        Raises:
            HPCRemoteError: its engines are of two sets, or are not MPI ranks.
        """
        return comm_of(self._aim()[0], self.client.link.engines)

    def set_flags(self, **flags: Any) -> Self:
        """Set flags (block, track, label, targets) and return the view.

        Raises:
            KeyError: there is no such flag.
        """
        for name in flags:
            if name not in FLAGS:
                near = did_you_mean(name, FLAGS)
                raise KeyError(f"a view has no flag {name!r}" + (near or f", only {', '.join(FLAGS)}"))
        for name, value in flags.items():
            setattr(self, name, value)
        return self

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[None]:
        """Set flags for the length of a ``with`` block."""
        former = {name: getattr(self, name) for name in flags if name in FLAGS}
        self.set_flags(**flags)
        try:
            yield
        finally:
            self.set_flags(**former)

    def __len__(self) -> int:
        return len(self.client) if self._frozen is None else len(self._frozen)

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> NoReturn:
        raise TypeError("a view cannot be pickled: engines have no use for it")

    def __repr__(self) -> str:
        shown = str(self.targets)
        if len(shown) > 24:
            shown = f"{shown[:20]}...]"
        return f"<{type(self).__name__} {shown}>"

    # ------------------------------------------------------------ calls

    def apply(self, f: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` on the engines.

        Returns:
            With ``block`` the result: one value in a view of one engine, else a list in view order.
            Without, an :class:`AsyncResult`.
        """
        return self.call(f, args, kwargs)

    def apply_async(self, f: Any, /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Call ``f(*args, **kwargs)`` on the engines and return an :class:`AsyncResult` at once."""
        result: AsyncResult = self.call(f, args, kwargs, block=False)
        return result

    def apply_sync(self, f: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call ``f(*args, **kwargs)`` on the engines and return the result."""
        return self.call(f, args, kwargs, block=True)

    def call(  # noqa: PLR0913 - the flags of a view
        self,
        f: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        block: bool | None = None,
        targets: Targets = None,
        label: str | None = None,
        track: bool | None = None,
        grace: float | None = None,
        needs: float | None = None,
    ) -> Any:
        """Call ``f(*args, **kwargs)`` as ``apply`` does, with flags for this call only."""
        f = plain_function(f)
        name = name_of(f)
        packed = functions.pack_function(f)
        inside, function = (None, packed) if packed.digest else (packed.data, None)
        pieces = payload.dump_call(inside, args, kwargs or {}, name=name)
        result = self._submit(
            "apply", [pieces], name, targets, function=function, label=label, grace=grace, needs=needs
        )
        return result.get() if (self.block if block is None else block) else result

    def _submit(
        self,
        op: str,
        payloads: Sequence[list[Buffer]],
        name: str,
        targets: Targets = None,
        *,
        function: functions.PackedFunction | None = None,
        **flags: Any,
    ) -> AsyncResult:
        ids, single = self._aim(targets)
        flight = self._launch(op, payloads, name, ids, function=function, **flags)
        return AsyncResult(self.client, flight, name=name, single=single)

    def _launch(
        self,
        op: str,
        payloads: Sequence[list[Buffer]],
        name: str,
        ids: Sequence[int],
        *,
        function: functions.PackedFunction | None = None,
        kind: type[Flight] = Flight,
        **flags: Any,
    ) -> Flight:
        terms = self._terms(**flags)
        flight = self.client.launch(op, payloads, name, ids, function=function, terms=terms, kind=kind)
        self._history.append((flight.call, ids))
        return flight

    def _terms(
        self, label: str | None = None, grace: float | None = None, needs: float | None = None
    ) -> Terms:
        """Return what goes with a call, of its own flags and the view's."""
        label = self.label if label is None else label
        grace = self.grace if grace is None else grace
        needs = self.needs if needs is None else needs
        if needs is not None and not isinstance(needs, (int, float)):
            raise TypeError(f"needs is a number of minutes, not {needs!r}")
        return Terms(label or "", -1.0 if grace is None else grace, 60.0 * (needs or 0.0))

    # ------------------------------------------------------------ decorators

    def remote(self, block: bool | None = None, **flags: Any) -> Any:
        """Return a decorator that makes a function run on the engines whenever it is called."""
        return lambda f: RemoteFunction(self, f, block=self.block if block is None else block, **flags)

    def parallel(self, dist: str = "b", block: bool | None = None, **flags: Any) -> Any:
        """Return a decorator that makes a function run on the engines, each on a part of its arguments."""
        return lambda f: ParallelFunction(
            self, f, dist=dist, block=self.block if block is None else block, **flags
        )

    # ------------------------------------------------------------ its calls so far

    @property
    def history(self) -> list[str]:
        """The names of its last calls, oldest first."""
        return [self.client.msg_id(call, engine) for call, ids in list(self._history) for engine in ids]

    @property
    def outstanding(self) -> set[str]:
        """The names of its calls that owe a result."""
        return self.client.outstanding.intersection(self.history)

    @property
    def results(self) -> Mapping[str, Any]:
        """The client's recent results by name."""
        return self.client.results

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for calls (default: all of this view), as ``Client.wait`` does."""
        return self.client.wait(sorted(self.outstanding) if jobs is None else self._named(jobs), timeout)

    def get_result(
        self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = False
    ) -> AsyncResult:
        """Return an AsyncResult for calls, named by their place in this view's history or by msg_id."""
        jobs = self._named(-1 if indices_or_msg_ids is None else indices_or_msg_ids)
        return self.client.get_result(jobs, block=block, owner=owner)

    def _named(self, jobs: Any) -> Any:
        """Replace indices into this view's history by names."""
        if isinstance(jobs, (list, tuple, set)):
            return [self._named(job) for job in jobs]
        if isinstance(jobs, (str, AsyncResult)) or not hasattr(jobs, "__index__"):
            return jobs
        history = self.history
        try:
            return history[operator.index(jobs)]
        except IndexError:
            raise IndexError(f"this view's history has {len(history)} entries, no number {jobs}") from None

    def abort(self, jobs: Any = None, targets: Targets = None, block: bool | None = None) -> None:
        """Do not start calls (default: all of this view) where they have not started."""
        jobs = sorted(self.outstanding) if jobs is None else self._named(jobs)
        self.client.abort(jobs, self.targets if targets is None else targets, block)

    def interrupt(self) -> None:
        """End this client's calls on any of these engines: drop those that wait, interrupt those that run.

        A call is ended on all of its engines, also those that are not in this view: in one step, so that no
        rank is left in a collective that others will not join.
        """
        ids = set(self._aim()[0])
        flights = [flight for flight in self.client.pending() if ids.intersection(flight.targets)]
        jobs = [flight.msg_id(seat) for flight in flights for seat in range(len(flight.targets))]
        if jobs:
            self.client.abort(jobs, interrupt=True)

    def queue_status(self, targets: Targets = None, verbose: bool = False) -> dict[Any, Any]:
        """Return how many calls the engines have before them and behind them."""
        return self.client.queue_status(self.targets if targets is None else targets, verbose)

    def purge_results(self, jobs: Any = (), targets: Targets = ()) -> None:
        """Let go of results that the client still holds."""
        self.client.purge_results(jobs, self.targets if isinstance(targets, str) else targets)

    def shutdown(
        self, targets: Targets = None, restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> None:
        """End the engines; with *hub* the controller too."""
        self.client.shutdown(self.targets if targets is None else targets, restart, hub, block)

    def spin(self) -> None:
        """Do nothing: results arrive by themselves."""
