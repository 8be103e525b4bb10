"""What the last line of executed code shows, on its way to a prompt or a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class ExecuteReply:
    """The result of ``view.execute(code, silent=False)`` on one engine: what its last line shows.

    Attributes:
        engine_id: the engine.
        record: ``execution_count``, and ``data``: representations by MIME type.
    """

    def __init__(self, record: dict[str, Any], engine_id: int) -> None:
        self.record = record
        self.engine_id = engine_id

    @property
    def execution_count(self) -> int:
        """How many codes the engine had executed then."""
        return int(self.record["execution_count"])

    @property
    def data(self) -> dict[str, Any]:
        """Representations by MIME type; empty when the last line shows nothing."""
        return dict(self.record["data"])

    def __repr__(self) -> str:
        return f"<ExecuteReply[{self.execution_count}]: {self.data.get('text/plain', '')}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {**self.data, "text/plain": f"Out[{self.engine_id}:{self.execution_count}]: {self._text()}"}

    def _text(self) -> str:
        return str(self.data.get("text/plain", ""))


def display_replies(outcomes: Iterable[object]) -> None:
    """Show those of *outcomes* that are replies with something to show, in IPython."""
    from IPython.display import display

    for outcome in outcomes:
        if isinstance(outcome, ExecuteReply) and outcome.data:
            display(outcome)
