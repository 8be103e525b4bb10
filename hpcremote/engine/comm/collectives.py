"""Uppercase collectives (arrays): the non-blocking form, and a wait that can be left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm.base import Base

_I = MPI.Intracomm


class Collectives(Base):
    """Collectives on buffers; arguments and results are mpi4py's."""

    def Barrier(self) -> None:  # noqa: N802 - mpi4py's names, here and below
        """See mpi4py."""
        self.collective("Barrier", None, _I.Ibarrier, self)

    def barrier(self) -> None:
        """See mpi4py."""
        self.collective("barrier", None, _I.Ibarrier, self)

    def Bcast(self, buf: Any, root: int = 0) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Bcast", root, _I.Ibcast, self, buf, root)

    def Gather(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Gather", root, _I.Igather, self, sendbuf, recvbuf, root)

    def Gatherv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Gatherv", root, _I.Igatherv, self, sendbuf, recvbuf, root)

    def Scatter(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Scatter", root, _I.Iscatter, self, sendbuf, recvbuf, root)

    def Scatterv(self, sendbuf: Any, recvbuf: Any, root: int = 0) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Scatterv", root, _I.Iscatterv, self, sendbuf, recvbuf, root)

    def Allgather(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Allgather", None, _I.Iallgather, self, sendbuf, recvbuf)

    def Allgatherv(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Allgatherv", None, _I.Iallgatherv, self, sendbuf, recvbuf)

    def Alltoall(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Alltoall", None, _I.Ialltoall, self, sendbuf, recvbuf)

    def Alltoallv(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Alltoallv", None, _I.Ialltoallv, self, sendbuf, recvbuf)

    def Alltoallw(self, sendbuf: Any, recvbuf: Any) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Alltoallw", None, _I.Ialltoallw, self, sendbuf, recvbuf)

    def Reduce(self, sendbuf: Any, recvbuf: Any, op: MPI.Op = MPI.SUM, root: int = 0) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Reduce", root, _I.Ireduce, self, sendbuf, recvbuf, op, root)

    def Allreduce(self, sendbuf: Any, recvbuf: Any, op: MPI.Op = MPI.SUM) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Allreduce", None, _I.Iallreduce, self, sendbuf, recvbuf, op)

    def Reduce_scatter_block(self, sendbuf: Any, recvbuf: Any, op: MPI.Op = MPI.SUM) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Reduce_scatter_block", None, _I.Ireduce_scatter_block, self, sendbuf, recvbuf, op)

    def Reduce_scatter(  # noqa: N802
        self, sendbuf: Any, recvbuf: Any, recvcounts: Sequence[int] | None = None, op: MPI.Op = MPI.SUM
    ) -> None:
        """See mpi4py."""
        self.collective("Reduce_scatter", None, _I.Ireduce_scatter, self, sendbuf, recvbuf, recvcounts, op)

    def Scan(self, sendbuf: Any, recvbuf: Any, op: MPI.Op = MPI.SUM) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Scan", None, _I.Iscan, self, sendbuf, recvbuf, op)

    def Exscan(self, sendbuf: Any, recvbuf: Any, op: MPI.Op = MPI.SUM) -> None:  # noqa: N802
        """See mpi4py."""
        self.collective("Exscan", None, _I.Iexscan, self, sendbuf, recvbuf, op)
