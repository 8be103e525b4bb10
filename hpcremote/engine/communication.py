"""What the engine's main parts know of its MPI side (``engine.comm.world``); without MPI there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from hpcremote.wire.messages import Renew, Stock


class Communication(Protocol):
    """The communicators that user code gets here, and what it is doing with them.

    Attributes:
        renewed: called when a renewal or spares are done, with its number and what went wrong ("": nothing).
        aborting: called before MPI_Abort, with its error code.
    """

    renewed: Callable[[int, str], None]
    aborting: Callable[[int], None]

    # ------------------------------------------------------------ the main thread

    def begin(self, seq: int, targets: Sequence[int]) -> None:
        """Run *seq* on these engines begins."""

    def end(self, *, failed: bool) -> int:
        """The run has ended; return by what it communicated (see ``Done.mpi``).

        After one that *failed* nothing is sent or received before ``settled`` or ``renew`` has come for it.
        """

    def renewal_due(self, upcoming: Callable[[], int]) -> bool:
        """Say whether communicators have to be made anew before the next run, whose number is *upcoming*."""

    def renew_now(self, upcoming: Callable[[], int]) -> None:
        """Make them anew; waits for the other engines where there is no spare."""

    def signalled(self) -> bool:
        """A signal has come to interrupt the user's code; say whether it has to come again, and will."""

    # ------------------------------------------------------------ any thread; these are quick

    def release(self, seq: int, why: str) -> None:
        """Where run *seq* waits, now or later, it raises ``Released``."""

    def settled(self, seq: int) -> None:
        """Run *seq*, which failed here, has ended everywhere, and its communicators are as good as new."""

    def renew(self, renewal: Renew | Stock) -> None:
        """Communicators have to be made anew, or spares to be made, as soon as possible."""

    def wake(self) -> None:
        """A signal has come: where the main thread waits, it is to look."""

    def note(self) -> str:
        """Say in which operation the main thread is, and which collectives it was in (``wire.notes``)."""
