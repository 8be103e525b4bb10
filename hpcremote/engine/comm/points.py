"""Point-to-point operations, arrays and objects, and probes.

Objects travel exactly as mpi4py sends them (one message, the pickle), so that ``isend`` and ``irecv``, which
are mpi4py's own, meet ``recv`` and ``send``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from mpi4py import MPI

from hpcremote.engine.comm.base import Base

_P = MPI.Intracomm
T = TypeVar("T")
#: Messages up to this size, in bytes, have come entirely when a probe finds them.
EAGER = 1024
#: How often ``recv`` looks for a message, as fast as it can, before it polls.
LOOKS = 32
_improbe = _P.Improbe
ANY_SOURCE, ANY_TAG = MPI.ANY_SOURCE, MPI.ANY_TAG
#: A buffer, the other rank, a tag.
_Where = tuple[Any, int, int]


class Points(Base):
    """Sends, receives and probes; arguments and results are mpi4py's."""

    def _send(self, operation: str, post: Callable[..., MPI.Request], what: Any, dest: int, tag: int) -> None:
        self.enter(operation, dest)
        try:
            self.watch.wait(self, post(self, what, dest, tag))
        finally:
            self.watch.now = None

    def Send(self, buf: Any, dest: int, tag: int = 0) -> None:  # noqa: N802 - mpi4py's names, here and below
        """See mpi4py."""
        self._send("Send", _P.Isend, buf, dest, tag)

    def Ssend(self, buf: Any, dest: int, tag: int = 0) -> None:  # noqa: N802
        """See mpi4py."""
        self._send("Ssend", _P.Issend, buf, dest, tag)

    def Rsend(self, buf: Any, dest: int, tag: int = 0) -> None:  # noqa: N802
        """See mpi4py."""
        self._send("Rsend", _P.Irsend, buf, dest, tag)

    def send(self, obj: Any, dest: int, tag: int = 0) -> None:
        """See mpi4py."""
        self._send("send", _P.isend, obj, dest, tag)

    def ssend(self, obj: Any, dest: int, tag: int = 0) -> None:
        """See mpi4py."""
        self._send("ssend", _P.issend, obj, dest, tag)

    def Recv(  # noqa: N802
        self, buf: Any, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: MPI.Status | None = None
    ) -> None:
        """See mpi4py."""
        self.enter("Recv", source)
        try:
            self.watch.wait(self, _P.Irecv(self, buf, source, tag), status, receives=True)
        finally:
            self.watch.now = None

    def recv(
        self, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: MPI.Status | None = None
    ) -> Any:
        """See mpi4py."""
        self.enter("recv", source)
        try:
            return self._receive(buf, source, tag, status)
        finally:
            self.watch.now = None

    def _receive(self, buf: Any, source: int, tag: int, status: MPI.Status | None) -> Any:
        if source == MPI.PROC_NULL:
            return _P.recv(self, buf, source, tag, status)
        if buf is not None:
            return self._receive_into(buf, source, tag, status)
        status = MPI.Status() if status is None else status
        message: Any = None
        for _ in range(LOOKS):
            if (message := _improbe(self, source, tag, status)) is not None:
                break
        else:
            message = self.watch.poll(lambda: _improbe(self, source, tag, status))
        if not (size := status.Get_count(MPI.BYTE)):
            message.Recv(None, status)
            return None
        data: bytearray | MPI.buffer
        if size <= EAGER:
            data = bytearray(size)  # mpi4py takes it faster than a buffer of its own
            message.Recv(data, status)
        else:
            data = MPI.buffer.allocate(size)
            self.watch.wait(self, message.Irecv(data), status)
        return MPI.pickle.loads(data)

    def _receive_into(self, buf: Any, source: int, tag: int, status: MPI.Status | None) -> Any:
        request = _P.irecv(self, buf, source, tag)
        found: list[Any] = []

        def ready() -> bool:
            complete, value = request.test(status)
            found.append(value)
            return complete

        try:
            self.watch.poll(ready)
        except BaseException:
            self.watch.drop(self, [request], receives=True)
            raise
        return found[-1]

    # ------------------------------------------------------------ both ways

    def _beside(self, send: MPI.Request, receive: Callable[[], T]) -> T:
        """Return what *receive* does, and wait for *send*, which is under way meanwhile."""
        try:
            received = receive()
        except BaseException:
            self.watch.drop(self, [send])
            raise
        self.watch.wait(self, send)
        return received

    def Sendrecv(  # noqa: N802 - mpi4py's signature
        self,
        sendbuf: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: MPI.Status | None = None,
    ) -> None:
        """See mpi4py."""
        self.enter("Sendrecv", source)
        try:
            self._exchange((sendbuf, dest, sendtag), (recvbuf, source, recvtag), status)
        finally:
            self.watch.now = None

    def _exchange(self, sent: _Where, received: _Where, status: MPI.Status | None) -> None:
        receive = _P.Irecv(self, *received)
        try:
            send = _P.Isend(self, *sent)
        except BaseException:  # it is no buffer, say
            self.watch.drop(self, [receive], receives=True)
            raise
        self._beside(send, lambda: self.watch.wait(self, receive, status, receives=True))

    def Sendrecv_replace(  # noqa: N802 - mpi4py's signature
        self,
        buf: Any,
        dest: int,
        sendtag: int = 0,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: MPI.Status | None = None,
    ) -> None:
        """See mpi4py."""
        self.enter("Sendrecv_replace", source)
        try:
            # Not Isendrecv_replace: it came with MPI 4, and MPICH 5.0.2 has it wrong (status, derived types).
            away = [_packed(buf), MPI.PACKED]
            self._exchange((away, dest, sendtag), (buf, source, recvtag), status)
        finally:
            self.watch.now = None

    def sendrecv(
        self,
        sendobj: Any,
        dest: int,
        sendtag: int = 0,
        recvbuf: Any = None,
        source: int = ANY_SOURCE,
        recvtag: int = ANY_TAG,
        status: MPI.Status | None = None,
    ) -> Any:
        """See mpi4py."""
        self.enter("sendrecv", source)
        try:
            send = _P.isend(self, sendobj, dest, sendtag)
            return self._beside(send, lambda: self._receive(recvbuf, source, recvtag, status))
        finally:
            self.watch.now = None

    # ------------------------------------------------------------ probes

    def _poll(self, operation: str, source: int, ready: Callable[[], Any]) -> Any:
        self.enter(operation, source)
        try:
            return self.watch.poll(ready)
        finally:
            self.watch.now = None

    def Probe(  # noqa: N802
        self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: MPI.Status | None = None
    ) -> Literal[True]:
        """See mpi4py."""
        self._poll("Probe", source, lambda: _P.Iprobe(self, source, tag, status))
        return True

    def probe(
        self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: MPI.Status | None = None
    ) -> Literal[True]:
        """See mpi4py."""
        self._poll("probe", source, lambda: _P.iprobe(self, source, tag, status))
        return True

    def Mprobe(  # noqa: N802
        self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: MPI.Status | None = None
    ) -> MPI.Message:
        """See mpi4py."""
        message: MPI.Message = self._poll("Mprobe", source, lambda: _P.Improbe(self, source, tag, status))
        return message

    def mprobe(
        self, source: int = ANY_SOURCE, tag: int = ANY_TAG, status: MPI.Status | None = None
    ) -> MPI.Message:
        """See mpi4py."""
        message: MPI.Message = self._poll("mprobe", source, lambda: _P.improbe(self, source, tag, status))
        return message


def _packed(buf: Any) -> MPI.buffer:
    """Return a copy of what *buf* names in any of mpi4py's ways: MPI reads it, for a message to ourselves."""
    alone = MPI.COMM_SELF.Dup()
    try:
        request = alone.Isend(buf, 0)
        status = MPI.Status()
        message = alone.Mprobe(0, 0, status)
        copy = MPI.buffer.allocate(status.Get_elements(MPI.BYTE))
        message.Recv([copy, MPI.PACKED])
        request.Wait()
    finally:
        alone.Free()
    return copy
