"""Results whose parts make one sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hpcremote.client.flight import Flight, Seat
from hpcremote.client.maps import Blocks
from hpcremote.client.result import AsyncResult

if TYPE_CHECKING:
    from hpcremote.client.calls import Calls


class AsyncMapResult(AsyncResult):
    """The result of a call whose parts make one sequence: ``map``, ``gather``, ``@parallel``.

    It can be iterated at any time, and yields items as they arrive: in order, or with ``ordered=False``
    in the order of arrival.
    """

    _flat_parts = False

    def __init__(
        self,
        client: Calls,
        awaited: Flight | Sequence[Seat],
        *,
        name: str,
        mapping: Blocks,
        sizes: Sequence[int] | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> None:
        self._mapping = mapping
        self._sizes = sizes
        self.ordered = ordered
        super().__init__(client, awaited, name=name, single=False, return_exceptions=return_exceptions)

    def assemble(self, values: list[Any]) -> Any:
        """Join the parts of the engines."""
        if self._return_exceptions and any(isinstance(value, BaseException) for value in values):
            return [item for value in values for item in _items_of(value)]
        return self._mapping.join(values)

    def __len__(self) -> int:
        return super().__len__() if self._sizes is None else sum(self._sizes)

    def weights(self) -> Sequence[int]:
        """Return how many items each engine has."""
        return super().weights() if self._sizes is None else self._sizes

    def each(self) -> Iterator[Any]:
        """Yield the items as they arrive."""
        if not self.ordered:
            return self._each_unordered()
        # Only blocks have their items in order; the others must all be there.
        return self._each_item(self._seats) if type(self._mapping) is Blocks else iter(self.get())

    def _each_item(self, seats: Sequence[Seat]) -> Iterator[Any]:
        for seat in seats:
            yield from _items_of(self.value_at(seat))

    def _each_unordered(self) -> Iterator[Any]:
        pending = list(self._seats)
        there: list[Seat] = []

        def some_are_there() -> bool:
            there[:] = [(flight, seat) for flight, seat in pending if flight.results[seat] is not None]
            return bool(there)

        while pending:
            self.wait_until(some_are_there, None)
            arrived = list(there)
            pending = [place for place in pending if place not in arrived]
            yield from self._each_item(arrived)


def _items_of(value: Any) -> Any:
    """Return the items of one engine's part; an exception, or what is no sequence, is one item."""
    return value if hasattr(value, "__iter__") and not isinstance(value, (str, bytes, dict)) else [value]
