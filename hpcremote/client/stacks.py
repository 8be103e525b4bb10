"""Where engines are, also while they hang: their stacks, seen from outside of them.

::

    view.stacks() ──Where──▶ controller ──Look──▶ node agents ──signal──▶ engines write their stacks
          Stacks ◀──merged by equal calls──────────────────────────────────────────┘
"""

from __future__ import annotations

import json
import linecache
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcremote.client.link import Link
from hpcremote.errors import HPCRemoteError
from hpcremote.wire import messages as m
from hpcremote.wire import stacks
from hpcremote.wire.meetings import told
from hpcremote.wire.stacks import Stack

if TYPE_CHECKING:
    from hpcremote.client.client import Client

_log = logging.getLogger("hpcremote.client")

#: How long the controller may take; it answers for agents that do not after less.
PATIENCE, NATIVE_PATIENCE = 10.0, 20.0


class Stacks:
    """Where engines are. ``print`` it, or let a notebook show it.

    Attributes:
        by_engine: engine id → its stack: ``frames`` (outermost first) and what it is ``doing`` there.
        text: engine id → what the engine wrote, with our own frames.
        state: engine id → what the kernel says about its process, or why it could not be seen.
        native: engine id → its C stack, where asked for.
        mismatches: sentences on collectives that ranks wait in and that are others on other ranks.
    """

    def __init__(self, rows: Mapping[int, Mapping[str, Any]]) -> None:
        self.text = {engine: str(row["text"]) for engine, row in rows.items()}
        self.state = {engine: str(row["state"]) for engine, row in rows.items()}
        self.native = {engine: str(row["native"]) for engine, row in rows.items() if row["native"]}
        self.by_engine = {engine: _stack(row) for engine, row in rows.items()}
        self._noun = "rank" if all(row["rank"] == engine for engine, row in rows.items()) else "engine"
        self.mismatches = told(rows, self.by_engine, self._noun)

    def __str__(self) -> str:
        said = [stacks.render(stacks.merge(self.by_engine), self._noun)]
        if self.mismatches:
            said.append("\n".join(self.mismatches))
        for engine, text in self.native.items():
            said.append(
                f"{self._noun} {engine} in C:\n" + "\n".join(f"  {line}" for line in text.splitlines())
            )
        return "\n\n".join(said)

    def __repr__(self) -> str:
        return f"<Stacks: {stacks.headline(stacks.merge(self.by_engine), self._noun)}>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def __getitem__(self, engine: int) -> Stack:
        return self.by_engine[engine]

    def __len__(self) -> int:
        return len(self.by_engine)


class Outside:
    """What a view does to its engines from outside: by their node agents, also while they hang."""

    client: Client
    _aim: Callable[..., tuple[Sequence[int], bool]]

    def stacks(self, *, native: bool = False) -> Stacks:
        """Return where the engines are, their stacks merged; with *native*, in C code too (they pause)."""
        return look(self.client.link, self._aim()[0], native=native)

    def send_signal(self, number: int) -> None:
        """Send a signal to the engines' processes, and to no other rank of theirs."""
        self.client.link.kill(self._aim()[0], number)


def _stack(row: Mapping[str, Any]) -> Stack:
    """Return an engine's stack; without one, what the kernel says takes its place."""
    text, state = str(row["text"]), str(row["state"])
    if not text:
        return Stack(doing=state)
    stack = stacks.user_stack(text)
    if stack.frames and not stack.doing:
        last = stack.frames[-1]
        # mpi4py has no Python frames: the line that calls it says what it does, if we have that line.
        operation = stacks.operation_in(linecache.getline(last.file, last.line))
        return Stack(stack.frames, f"in {operation}" if operation else "")
    return stack


def tell_of_hanging(message: m.Hanging, name: str) -> None:
    """Say, in the log, that a call has run for long, and where its engines are."""
    rows = json.loads(message.data)
    seen = Stacks({int(engine): row for engine, row in rows.items()})
    _log.warning("%s has run for %.1f s:\n%s", name, message.seconds, seen)


def look(
    link: Link, targets: Sequence[int] | None = None, *, native: bool = False, timeout: float | None = None
) -> Stacks:
    """Return where the engines of *targets* (None: all) are.

    Raises:
        HPCRemoteError: there are none, or the controller does not answer.
    """
    if timeout is None:
        timeout = NATIVE_PATIENCE if native else PATIENCE
    rows = link.where(list(link.engines) if targets is None else targets, native=native, timeout=timeout)
    if not rows:
        raise HPCRemoteError("there are no engines to look at")
    return Stacks({int(engine): row for engine, row in rows.items()})
