"""Operations on bulk data that all engines of a call do together, by MPI.

::

    client ══ all of it ═══▶ first engine ─── spread, deal ──▶ every engine      mpi_push, mpi_scatter
    client ◀═ all of it ════ first engine ◀── collect ──────── every engine      mpi_pull
    client ◀═ the result ═══ first engine ◀── Reduce ───────── every engine      mpi_reduce
                             any engine ───── spread ────────▶ every engine      mpi_bcast

    op           payload                                          value
    mpi_push     first engine: (head, chunks) of a push           None
    mpi_scatter  first engine: (heads, chunks) of all engines'    None
    mpi_pull     name, or names; size of chunks or 0              (OWN, value), (ALL, crates), (SENT, None),
                                                                  or in chunks (CUT, (heads, chunks))
    mpi_reduce   see reduction                                    first engine: the result
    mpi_bcast    (rank in the call, name)                         None

Values are unpickled after they have been moved, and where reading a name fails its engine still takes part:
so an engine on which something is wrong leaves no other one waiting. What cannot be foreseen (an expression
that raises, an engine that dies) ends as in any call that uses MPI: those that wait are released.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pickle import PickleBuffer
from typing import Any, Protocol

from hpcremote.engine import carry
from hpcremote.engine.comm import current
from hpcremote.engine.namespace import Namespace
from hpcremote.wire import payload
from hpcremote.wire.chunks import assembled, cut
from hpcremote.wire.crate import ALL, CUT, FAILED, OWN, SENT, Crate, Head, crate_of
from hpcremote.wire.failure import capture
from hpcremote.wire.pickler import Buffer

Operation = Callable[[bytes, Sequence[Buffer]], Any]


class Local(Protocol):
    """What the engine does alone."""

    namespace: Namespace

    def apply(self, digest: bytes, pieces: Sequence[Buffer]) -> Any:
        """Call a function."""

    def push(self, digest: bytes, pieces: Sequence[Buffer]) -> None:
        """Bind names."""


class Bulk:
    """The operations; see the module's docstring."""

    def __init__(self, local: Local) -> None:
        self._local = local

    @property
    def operations(self) -> dict[str, Operation]:
        """The operations by name."""
        return {
            "mpi_push": self._push,
            "mpi_scatter": self._scatter,
            "mpi_pull": self._pull,
            "mpi_reduce": self._reduce,
            "mpi_bcast": self._bcast,
        }

    def _push(self, digest: bytes, pieces: Sequence[Buffer]) -> None:
        comm = current.comm()
        crate = None
        if comm.Get_rank() == 0:
            head, chunks = payload.load(pieces)
            crate = assembled(Head(*head), chunks)
        self._local.push(b"", carry.spread(comm, crate) or ())

    def _scatter(self, digest: bytes, pieces: Sequence[Buffer]) -> None:
        comm = current.comm()
        heads, chunks = payload.load(pieces) if comm.Get_rank() == 0 else (None, ())
        self._local.push(b"", carry.deal(comm, heads and [Head(*head) for head in heads], chunks))

    def _pull(self, digest: bytes, pieces: Sequence[Buffer]) -> tuple[str, Any]:
        names, step = payload.load(pieces)
        comm = current.comm()
        value, packed, problem = None, None, None
        try:
            value = self._local.namespace.pull(names)
            packed = payload.dump_result(value)
        except Exception as error:
            if not _are_plain(names):
                raise
            problem = error
        try:
            came = carry.collect(comm, packed)
        except carry.Unwilling:
            return (OWN, value) if problem is None else failed(problem)
        if came is None:
            return SENT, None
        if step:
            return CUT, ([tuple(head) for head in came.heads], cut([came.area], step))
        return ALL, [_outward(crate) for crate in came.crates()]

    def _bcast(self, digest: bytes, pieces: Sequence[Buffer]) -> tuple[str, bytes] | None:
        root, name = payload.load(pieces)
        comm = current.comm()
        if comm.Get_rank() != root:
            came = carry.spread(comm, None, root)
            if came is not None:
                self._local.push(b"", came)
            return None
        packed, problem = None, None
        try:
            packed = payload.dump({name: self._local.namespace.evaluate(name)}, what=name)
        except Exception as error:
            if not _are_plain(name):
                raise
            problem = error
        carry.spread(comm, None if packed is None else crate_of(packed), root)
        return None if problem is None else failed(problem)

    def _reduce(self, digest: bytes, pieces: Sequence[Buffer]) -> Any:
        from hpcremote.engine import reduction  # only where it is used

        return reduction.reduce(current.comm(), self._local, digest, pieces)


def failed(error: Exception) -> tuple[str, bytes]:
    """Return what an engine answers on which something is wrong, and which took part nevertheless."""
    return FAILED, capture(error)


def _are_plain(names: str | Sequence[str]) -> bool:
    """Say whether these are mere names: looking one up runs no code that could communicate."""
    return all(name.isidentifier() for name in ([names] if isinstance(names, str) else names))


def _outward(crate: Crate) -> tuple[Any, ...]:
    """Return a crate as it is pickled: its big pieces out of band."""
    return tuple(crate.head), [PickleBuffer(big) for big in crate.bigs]
