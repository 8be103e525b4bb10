"""Views that move bulk data and reduce values, by MPI where that is faster (see ``client.carrier``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pickle import PickleBuffer
from typing import Any

from hpcremote.client.bulkflight import MPIFlight, PullFlight, Reduction
from hpcremote.client.carrier import THRESHOLD, carried_by_mpi, share_memory
from hpcremote.client.flight import Flight
from hpcremote.client.mapresult import AsyncMapResult
from hpcremote.client.maps import Blocks, as_sequence, map_of
from hpcremote.client.remotefunction import name_of, plain_function
from hpcremote.client.result import AsyncResult
from hpcremote.client.viewbase import Targets, View
from hpcremote.wire import functions, operators, payload
from hpcremote.wire.chunks import CHUNK, cut
from hpcremote.wire.crate import Crate, crate_of
from hpcremote.wire.functions import PackedFunction
from hpcremote.wire.operators import Operator
from hpcremote.wire.payload import BIG
from hpcremote.wire.pickler import Buffer


class BulkView(View):
    """Parts of sequences, reductions, and how ``push`` and ``pull`` move their data."""

    # ------------------------------------------------------------ parts

    def scatter(
        self,
        key: str,
        seq: Any,
        dist: str = "b",
        flatten: bool = False,
        targets: Targets = None,
        block: bool | None = None,
        track: bool | None = None,
        via: str | None = None,
    ) -> AsyncResult | None:
        """Deal the items of *seq* to the engines, each part under the name *key*.

        Args:
            key: the name.
            seq: a list, an array (dealt along its first axis), an iterator, ...
            dist: ``b`` deals blocks, ``r`` deals in turns.
            flatten: a part of one item is that item instead of a sequence.
            targets: engines, instead of the view's.
            block: whether to wait.
            track: no meaning here.
            via: ``mpi`` sends all to the first engine, which deals it by MPI.
        """
        if not isinstance(key, str):
            raise TypeError(f"names are strings, not {key!r}")
        ids, _ = self._aim(targets)
        items, mapping = as_sequence(seq), map_of(dist)
        parts = [mapping.part(items, index, len(ids), len(items)) for index in range(len(ids))]
        values = [part[0] if flatten and len(part) == 1 else part for part in parts]
        name = f"scatter {key}"
        payloads = [payload.dump({key: value}, what=name) for value in values]
        whole = items if type(mapping) is Blocks else None
        result = self._scattered(name, payloads, whole, ids, via)
        if self.block if block is None else block:
            result.get()
            return None
        return result

    def gather(
        self,
        key: str,
        dist: str = "b",
        targets: Targets = None,
        block: bool | None = None,
        via: str | None = None,
    ) -> Any:
        """Return the parts that the engines have under the name *key* as one sequence.

        With ``via="mpi"`` they come together on the first engine, and then here.
        """
        if not isinstance(key, str):
            raise TypeError(f"names are strings, not {key!r}")
        mapping = map_of(dist)
        ids, _ = self._aim(targets)
        flight = self._pulled(key, f"gather {key}", ids, via)
        result = AsyncMapResult(self.client, flight, name=f"gather {key}", mapping=mapping)
        return result.get() if (self.block if block is None else block) else result

    # ------------------------------------------------------------ one value of many

    def reduce(
        self,
        f: Callable[..., Any] | str,
        op: str | Operator = "sum",
        *,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        targets: Targets = None,
        block: bool | None = None,
        via: str | None = None,
    ) -> Any:
        """Return one value made of one value of each engine.

        Args:
            f: called on each engine with *args* and *kwargs*; or a name in the engines' namespaces.
            op: ``sum``, ``prod``, ``max``, ``min``, ``land``, ``lor``, ``lxor``, ``band``, ``bor``, ``bxor``,
                or a function of two values. It has to be associative; the engines' order is kept.
            args: arguments of *f*.
            kwargs: keyword arguments of *f*.
            targets: engines, instead of the view's.
            block: whether to wait.
            via: ``mpi`` or ``controller``, instead of MPI where there is MPI.

        Returns:
            The value, or an AsyncResult whose ``get()`` returns it.
        """
        ids, _ = self._aim(targets)
        work = _Work(f, args, kwargs or {}, operators.checked(op))
        result = self._reduced(work, ids, by_mpi=carried_by_mpi(self.client, ids, via, free=False))
        return result.get() if (self.block if block is None else block) else result

    def allreduce(
        self,
        f: Callable[..., Any] | str,
        op: str | Operator = "sum",
        name: str | None = None,
        *,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
        targets: Targets = None,
        block: bool | None = None,
        via: str | None = None,
    ) -> Any:
        """Leave one value, made of one value of each engine, on every engine under *name*.

        It does not cross to the client, unless there is no *name*: then this is ``reduce``, whose arguments
        the others are. Without MPI it goes to the client and back; the way there is waited for.
        """
        if name is None:
            return self.reduce(f, op, args=args, kwargs=kwargs, targets=targets, block=block, via=via)
        ids, single = self._aim(targets)
        work = _Work(f, args, kwargs or {}, operators.checked(op))
        if carried_by_mpi(self.client, ids, via, free=False):
            flight = self._launch_reduction(work, ids, keep=name)
            result = AsyncResult(self.client, flight, name=work.name, single=single)
        else:
            value = self._reduced(work, ids, by_mpi=False).get()
            result = self._pushed({name: value}, ids, via="controller", single=single)
        return result.get() if (self.block if block is None else block) else result

    def bcast_from(
        self,
        engine: int,
        name: str,
        *,
        targets: Targets = None,
        block: bool | None = None,
        via: str | None = None,
    ) -> Any:
        """Give all engines what one of them has under *name*.

        Without MPI it goes to the client and back; the way there is waited for.

        Args:
            engine: the id of that one, which has to be one of the view's.
            name: the name.
            targets: engines, instead of the view's.
            block: whether to wait.
            via: ``mpi`` or ``controller``, instead of MPI where there is MPI.

        Raises:
            ValueError: the engine is not in this view.
        """
        ids, single = self._aim(targets)
        (root,), _ = self.client.resolve([engine])
        if root not in ids:
            raise ValueError(f"engine {root} is not among those of this view: {list(ids)}")
        if carried_by_mpi(self.client, ids, via, free=False):
            payloads = [payload.dump((list(ids).index(root), name))]
            flight = self._carry("mpi_bcast", payloads, f"bcast_from {name}", ids)
            result = AsyncResult(self.client, flight, name=flight.name, single=single)
        else:
            value = self._submit("pull", [payload.dump(name)], f"pull {name}", root).get()
            result = self._pushed({name: value}, ids, via="controller", single=single)
        return result.get() if (self.block if block is None else block) else result

    def _reduced(self, work: _Work, ids: Sequence[int], *, by_mpi: bool) -> AsyncResult:
        if by_mpi:
            flight = self._launch_reduction(work, ids, keep=None)
            return Reduction(self.client, flight, name=work.name, combine=None)
        flight = self._launch(work.alone, [work.pieces], work.name, ids, function=work.function)
        return Reduction(self.client, flight, name=work.name, combine=operators.function_of(work.op))

    def _launch_reduction(self, work: _Work, ids: Sequence[int], *, keep: str | None) -> Flight:
        plan = payload.dump((work.op, work.source, keep), what="the operation of a reduction")
        pieces = [*payload.dump(len(plan)), *plan, *work.pieces]
        return self._carry("mpi_reduce", [pieces], work.name, ids, function=work.function)

    # ------------------------------------------------------------ there and back

    def _pushed(
        self, values: Mapping[str, Any], ids: Sequence[int], *, via: str | None, single: bool
    ) -> AsyncResult:
        names = ", ".join(values)
        name = f"push {names}"
        pieces = payload.dump(dict(values), what=f"push of {names}")
        # Where memory is shared, nothing is faster; elsewhere the controller would send it to each engine.
        pays = _size(pieces) >= THRESHOLD and not share_memory(self.client, ids)
        if (pays or via is not None) and carried_by_mpi(self.client, ids, via):
            crate = crate_of(pieces)
            sent = payload.dump((tuple(crate.head), self._chunks(crate.bigs, ids)))
            flight = self._carry("mpi_push", _for_first(sent, len(ids)), name, ids)
        else:
            flight = self._launch("push", [pieces], name, ids)
        return AsyncResult(self.client, flight, name=name, single=single)

    def _scattered(
        self, name: str, parts: Sequence[list[Buffer]], whole: Any, ids: Sequence[int], via: str | None
    ) -> AsyncResult:
        # The controller hands each engine its part: as many bytes as to one engine, and one step less.
        if via is not None and carried_by_mpi(self.client, ids, via):
            crates = [crate_of(pieces) for pieces in parts]
            # One piece, instead of one for each engine, which the first would have to put together.
            memory = _memory_of(whole, crates)
            bigs = [big for crate in crates for big in crate.bigs] if memory is None else [memory]
            sent = payload.dump(([tuple(crate.head) for crate in crates], self._chunks(bigs, ids)))
            flight = self._carry("mpi_scatter", _for_first(sent, len(ids)), name, ids)
        else:
            flight = self._launch("push", parts, name, ids)
        return AsyncResult(self.client, flight, name=name, single=False)

    def _pulled(self, names: str | tuple[str, ...], name: str, ids: Sequence[int], via: str | None) -> Flight:
        # As for scatter; and nobody knows beforehand how much it is.
        if via is not None and carried_by_mpi(self.client, ids, via):
            step = 0 if share_memory(self.client, ids) else CHUNK
            return self._carry("mpi_pull", [payload.dump((names, step))], name, ids, kind=PullFlight)
        return self._launch("pull", [payload.dump(names)], name, ids)

    def _chunks(self, buffers: Sequence[Buffer], ids: Sequence[int]) -> list[PickleBuffer]:
        """Return buffers as they are pickled: as they are, or cut where each message has to be encrypted."""
        return cut(buffers, sys.maxsize if share_memory(self.client, ids) else CHUNK)

    def _carry(
        self,
        op: str,
        payloads: Sequence[list[Buffer]],
        name: str,
        ids: Sequence[int],
        *,
        function: PackedFunction | None = None,
        kind: type[MPIFlight] = MPIFlight,
    ) -> Flight:
        return self._launch(op, payloads, name, ids, function=function, kind=kind)


class _Work:
    """What every engine does for a reduction, a call or a look at a name, and how the values are combined."""

    def __init__(
        self,
        f: Callable[..., Any] | str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        op: str | Operator,
    ) -> None:
        self.op = op
        self.function: PackedFunction | None = None
        if isinstance(f, str):
            if args or kwargs:
                raise TypeError(
                    f"what engines have under the name {f!r} is not called: it takes no arguments"
                )
            self.source: str | None = f
            self.alone, self.name, self.pieces = "pull", f"reduce {f}", payload.dump(f)
            return
        packed = functions.pack_function(plain_function(f))
        inside, self.function = (None, packed) if packed.digest else (packed.data, None)
        self.source, self.alone, self.name = None, "apply", f"reduce {name_of(f)}"
        self.pieces = payload.dump_call(inside, args, kwargs, name=name_of(f))


def _size(pieces: Sequence[Buffer]) -> int:
    return sum(piece.nbytes if isinstance(piece, memoryview) else len(piece) for piece in pieces)


def _for_first(pieces: list[Buffer], count: int) -> list[list[Buffer]]:
    """Return the payloads of a call on *count* engines, of which the first gets *pieces*."""
    return [pieces, *[payload.dump(None)] * (count - 1)]


def _memory_of(whole: Any, crates: Sequence[Crate]) -> Buffer | None:
    """Return the memory of an array if the big pieces of the crates are its parts, one after the other."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(whole) is not numpy.ndarray or not whole.flags.c_contiguous:
        return None
    spans = [crate.head.bigs for crate in crates]
    if any(len(sizes) != 1 or crate.head.sizes[0] >= BIG for sizes, crate in zip(spans, crates, strict=True)):
        return None
    if sum(size for (size,) in spans) != whole.nbytes:
        return None
    return memoryview(whole.reshape(-1).view("u1"))
