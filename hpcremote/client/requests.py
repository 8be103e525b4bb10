"""What a client asks of the controller itself, and waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hpcremote.wire import messages as m


class Requests:
    """The half of :class:`hpcremote.client.link.Link` that is about requests."""

    def request(self, make: Callable[[int], m.AnyMessage], timeout: float) -> Any:
        """Send what *make* returns for a number, and return the answer to that."""
        raise NotImplementedError

    def query(self, what: str, timeout: float = 10.0) -> Any:
        """Ask the controller.

        Raises:
            TimeoutError: no answer in *timeout* seconds.
            HPCRemoteError: the controller cannot tell.
        """
        return self.request(lambda number: m.Query(number, what), timeout)

    def shutdown(self, targets: Sequence[int], *, controller: bool, timeout: float = 10.0) -> None:
        """End engines, or everything; return when the controller has taken note.

        Raises:
            HPCRemoteError: it cannot be done, in the controller's words.
        """
        self.request(lambda number: m.Shutdown(number, list(targets), controller), timeout)

    def where(self, targets: Sequence[int], *, native: bool, timeout: float = 10.0) -> Any:
        """Ask where engines are: for each id, what was seen of it.

        Raises:
            TimeoutError: no answer in *timeout* seconds.
        """
        return self.request(lambda request: m.Where(request, list(targets), native), timeout)

    def kill(self, targets: Sequence[int], number: int, timeout: float = 10.0) -> None:
        """Have the node agents send a signal to exactly these engines.

        Raises:
            HPCRemoteError: it cannot be done, in the controller's words.
        """
        self.request(lambda request: m.Kill(request, list(targets), number), timeout)
