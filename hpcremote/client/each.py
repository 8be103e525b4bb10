"""What engines are sent for ``map``: a function, to be called on every item. Imported there too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class Each:
    """Calls *function* on each item of the sequences it is given."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *sequences: Iterable[Any]) -> list[Any]:
        """Return the list of the function's values."""
        # Not map(): it would take a StopIteration of the function's for its own end, and drop values.
        return [self.function(*items) for items in zip(*sequences, strict=False)]

    def __reduce__(self) -> tuple[Any, ...]:
        return Each, (self.function,)
