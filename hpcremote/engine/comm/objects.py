"""Lowercase collectives (any object, pickled), over the hidden duplicate.

An object goes in a *head* of fixed size with the length of its pickle; a pickle that does not fit goes in a
second message of its own. So small objects take one operation of MPI's, and nobody has to probe. ::

    head   [length: 8 bytes][the pickle, if it fits]     then, if it does not: the pickle

Reductions follow the tree that mpi4py uses, so that even sums of floats are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm.base import Base

#: Size of a head, in bytes.
HEAD = 256
ROOM = HEAD - 8
head_form = Struct(f"<Q{ROOM}s")
_TAG = 1

Operator = MPI.Op | Callable[[Any, Any], Any] | None


def pack(obj: Any) -> tuple[bytes, bytes]:
    """Return head and rest."""
    data = MPI.pickle.dumps(obj)
    size = len(data)
    return (head_form.pack(size, data), b"") if size <= ROOM else (head_form.pack(size, b""), data)


def unpack(data: bytes, rest: Any) -> Any:
    """Return the object that is in the rest, or if there is none in the head (pickle knows where it ends)."""
    return MPI.pickle.loads(rest or data)


def items_of(objects: Sequence[Any] | None, count: int) -> list[Any]:
    """Return one object for each of those who get one."""
    items = [None] * count if objects is None else list(objects)
    if len(items) != count:
        raise ValueError(f"expecting {count} items, got {len(items)}")
    return items


class Objects(Base):
    """Collectives on objects; arguments and results are mpi4py's."""

    def bcast(self, obj: Any, root: int = 0) -> Any:
        """See mpi4py."""
        self.begin("bcast", root)
        try:
            return self._bcast(obj, root)
        finally:
            self.watch.now = None

    def _bcast(self, obj: Any, root: int) -> Any:
        head: bytes | bytearray
        rest: bytes | MPI.buffer
        mine = root == self.my_rank
        head, rest = pack(obj) if mine else (bytearray(HEAD), b"")
        self.watch.wait(self, self.hidden.Ibcast(head, root))
        size, data = head_form.unpack(head)
        if size > ROOM:
            rest = rest if mine else self._room(size)
            self.watch.wait(self, self.hidden.Ibcast(rest, root))
        return unpack(data, rest)

    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None:
        """See mpi4py."""
        self.begin("gather", root)
        try:
            return self._gather(sendobj, root)
        finally:
            self.watch.now = None

    def _gather(self, obj: Any, root: int) -> list[Any] | None:
        head, rest = pack(obj)
        if root != self.my_rank:
            self.watch.wait(self, self.hidden.Igather(head, None, root))
            if rest:
                self.watch.wait(self, self.hidden.Isend(rest, root, _TAG))
            return None
        heads = bytearray(HEAD * self.my_size)
        self.watch.wait(self, self.hidden.Igather(head, heads, root))
        return self._unpack_all(heads, rest, [])

    def _unpack_all(self, heads: bytearray, mine: bytes, sends: list[MPI.Request]) -> list[Any]:
        """Return what the heads of all ranks and the rests that follow them mean."""
        rows = list(head_form.iter_unpack(heads))
        if not sends and all(size <= ROOM for size, _ in rows):
            return [MPI.pickle.loads(data) for _, data in rows]
        rests: list[Any] = [None] * self.my_size
        requests = list(sends)
        try:
            for rank, (size, _) in enumerate(rows):
                if rank == self.my_rank:
                    rests[rank] = mine
                elif size > ROOM:
                    rests[rank] = self._room(size)
                    requests.append(self.hidden.Irecv(rests[rank], rank, _TAG))
        except BaseException:  # no memory, or a signal's
            self.watch.drop(self, requests)
            raise
        self.watch.wait_all(self, requests)
        return [unpack(data, rest) for (_, data), rest in zip(rows, rests, strict=True)]

    def _deal(self, objects: Sequence[Any] | None) -> tuple[bytes, list[bytes]]:
        """Return the heads of one object for each rank, and their rests."""
        packed = [pack(item) for item in items_of(objects, self.my_size)]
        return b"".join(head for head, _ in packed), [rest for _, rest in packed]

    def _send_rests(self, rests: list[bytes]) -> list[MPI.Request]:
        return self._send_all([(rest, i) for i, rest in enumerate(rests) if rest and i != self.my_rank])

    def _room(self, size: int) -> MPI.buffer:
        """Return memory for what another rank is sending; if there is none, nothing more can come by us."""
        try:
            return MPI.buffer.allocate(size)
        except BaseException:
            self.watch.leave_behind(self, [])
            raise

    def _send_all(self, parcels: list[tuple[bytes, int]]) -> list[MPI.Request]:
        """Begin to send these to their ranks: all, or none that is not kept."""
        requests: list[MPI.Request] = []
        try:
            for data, dest in parcels:
                requests.append(self.hidden.Isend(data, dest, _TAG))
        except BaseException:
            self.watch.drop(self, requests)
            raise
        return requests

    def scatter(self, sendobj: Sequence[Any] | None, root: int = 0) -> Any:
        """See mpi4py."""
        self.begin("scatter", root)
        try:
            head = bytearray(HEAD)
            rest: bytes | MPI.buffer = b""
            if root == self.my_rank:
                heads, rests = self._deal(sendobj)
                self.watch.wait(self, self.hidden.Iscatter(heads, head, root))
                if any(rests):
                    self.watch.wait_all(self, self._send_rests(rests))
                    rest = rests[root]
            else:
                self.watch.wait(self, self.hidden.Iscatter(None, head, root))
            size, data = head_form.unpack(head)
            if size > ROOM and root != self.my_rank:
                rest = self._room(size)
                self.watch.wait(self, self.hidden.Irecv(rest, root, _TAG))
            return unpack(data, rest)
        finally:
            self.watch.now = None

    def allgather(self, sendobj: Any) -> list[Any]:
        """See mpi4py."""
        self.begin("allgather")
        try:
            head, rest = pack(sendobj)
            heads = bytearray(HEAD * self.my_size)
            self.watch.wait(self, self.hidden.Iallgather(head, heads))
            rows = list(head_form.iter_unpack(heads))
            sizes = [size if size > ROOM else 0 for size, _ in rows]
            if not any(sizes):
                return [MPI.pickle.loads(data) for _, data in rows]
            everything: Any = self._room(sum(sizes))
            request = self.hidden.Iallgatherv(rest, [everything, sizes, MPI.BYTE])
            self.watch.wait(self, request)
            values, start = [], 0
            for (_, data), size in zip(rows, sizes, strict=True):
                values.append(unpack(data, everything[start : start + size]))
                start += size
            return values
        finally:
            self.watch.now = None

    def alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """See mpi4py."""
        self.begin("alltoall")
        try:
            theirs, rests = self._deal(sendobj)
            heads = bytearray(HEAD * self.my_size)
            self.watch.wait(self, self.hidden.Ialltoall(theirs, heads))
            return self._unpack_all(heads, rests[self.my_rank], self._send_rests(rests))
        finally:
            self.watch.now = None

    # ------------------------------------------------------------ reductions

    def reduce(self, sendobj: Any, op: Operator = MPI.SUM, root: int = 0) -> Any | None:
        """See mpi4py."""
        self.begin("reduce", root)
        try:
            if not 0 <= root < self.my_size:
                raise MPI.Exception(MPI.ERR_ROOT)
            result = self._fold(sendobj, MPI.SUM if op is None else op)
            if root == 0:
                return result
            if self.my_rank == 0:
                self._put(result, root)
            return self._take(0) if self.my_rank == root else None
        finally:
            self.watch.now = None

    def allreduce(self, sendobj: Any, op: Operator = MPI.SUM) -> Any:
        """See mpi4py."""
        self.begin("allreduce")
        try:
            return self._bcast(self._fold(sendobj, MPI.SUM if op is None else op), 0)
        finally:
            self.watch.now = None

    def scan(self, sendobj: Any, op: Operator = MPI.SUM) -> Any:
        """See mpi4py."""
        self.begin("scan")
        try:
            return self._prefix(sendobj, MPI.SUM if op is None else op, inclusive=True)
        finally:
            self.watch.now = None

    def exscan(self, sendobj: Any, op: Operator = MPI.SUM) -> Any:
        """See mpi4py."""
        self.begin("exscan")
        try:
            return self._prefix(sendobj, MPI.SUM if op is None else op, inclusive=False)
        finally:
            self.watch.now = None

    def _fold(self, obj: Any, op: Callable[[Any, Any], Any]) -> Any:
        """Reduce to rank 0 along a binomial tree, lower ranks on the left; None on the others."""
        rank, step = self.my_rank, 1
        own = True
        while step < self.my_size:
            if rank & step:
                self._put(obj, rank - step)
                return None
            if rank + step < self.my_size:
                # The operator may work in place: never on what the user passed.
                obj, own = (_copy(obj) if own else obj), False
                obj = op(obj, self._take(rank + step))
            step *= 2
        return _copy(obj) if own else obj

    def _prefix(self, obj: Any, op: Callable[[Any, Any], Any], *, inclusive: bool) -> Any:
        """Reduce over all lower ranks (None on rank 0), and this one if *inclusive*."""
        group = _copy(obj)  # of the ranks that exchanged so far
        result = _copy(obj) if inclusive else None
        rank, step, nothing = self.my_rank, 1, not inclusive
        while step < self.my_size:
            peer = rank ^ step
            if peer < self.my_size:
                theirs = self._swap(group, peer)
                if peer < rank:
                    group = op(_copy(theirs), group)
                    result = theirs if nothing else op(theirs, result)
                    nothing = False
                else:
                    group = op(group, theirs)
            step *= 2
        return result

    def _put(self, obj: Any, dest: int) -> None:
        self.watch.wait_all(self, self._post(obj, dest))

    def _post(self, obj: Any, dest: int) -> list[MPI.Request]:
        head, rest = pack(obj)
        return self._send_all([(head, dest), (rest, dest)] if rest else [(head, dest)])

    def _take(self, source: int) -> Any:
        head = bytearray(HEAD)
        rest: bytes | MPI.buffer = b""
        self.watch.wait(self, self.hidden.Irecv(head, source, _TAG))
        size, data = head_form.unpack(head)
        if size > ROOM:
            rest = self._room(size)
            self.watch.wait(self, self.hidden.Irecv(rest, source, _TAG))
        return unpack(data, rest)

    def _swap(self, obj: Any, peer: int) -> Any:
        requests = self._post(obj, peer)
        try:
            theirs = self._take(peer)
        except BaseException:
            self.watch.leave_behind(self, requests)
            raise
        self.watch.wait_all(self, requests)
        return theirs


def _copy(obj: Any) -> Any:
    return MPI.pickle.loads(MPI.pickle.dumps(obj))
