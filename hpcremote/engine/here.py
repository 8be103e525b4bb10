"""The engine that this process is, for functions that users call in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcremote.errors import HPCRemoteError

if TYPE_CHECKING:
    from hpcremote.engine.executor import Executor

_executor: Executor | None = None


def install(executor: Executor) -> None:
    """Make *executor* the one that runs this process' calls."""
    global _executor  # noqa: PLW0603 - a process is one engine
    _executor = executor


def engine(what: str) -> Executor:
    """Return the executor whose call runs now.

    Raises:
        HPCRemoteError: none does; *what* works in a call only.
    """
    if _executor is None or not _executor.working:
        raise HPCRemoteError(f"{what} works inside a call on an engine, and no call runs in this process")
    return _executor
