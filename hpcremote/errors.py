"""Every exception that hpcremote raises, in one place.

::

    HPCRemoteError
    ├── ConfigError                a file or a setting is wrong: says which, where, and the nearest right one
    │   ├── ProfileError           a profile
    │   ├── LauncherError          a launcher file
    │   └── ConnectionFileError    a connection file: missing, stale, truncated, readable by others
    ├── LaunchError                processes could not be started, or did not come up in time
    │   └── AlreadyRunning         a cluster of that profile and id lives already
    ├── ClusterNotFound            no such cluster runs here
    ├── NotConnected               (also a ConnectionError) no controller answers, or it went away
    │   └── Refused                the controller answered, and will not have us: it says why
    ├── PayloadError               an argument or result that cannot be sent: names the argument
    ├── NoEnginesRegistered        a view without engines was asked to work
    ├── EngineError                an engine died or left while it owed a result: which, how, its last output
    ├── TaskAborted                the call was aborted before it started
    ├── UnmetDependency            what @require or @depend asked for is not there
    └── RemoteError                user code raised on an engine
        └── CompositeError         ... on one or more of several engines

``TimeoutError`` is Python's own: the result is not ready *yet*, nothing is lost.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence

TimeoutError = builtins.TimeoutError


class HPCRemoteError(Exception):
    """Root of all errors of hpcremote."""


class ConfigError(HPCRemoteError):
    """A setting or a file that configures hpcremote is wrong."""


class ProfileError(ConfigError):
    """A profile is missing or wrong; the message has file, line, key and the nearest right name."""


class LauncherError(ConfigError):
    """A launcher file is missing or wrong."""


class ConnectionFileError(ConfigError):
    """A connection file is missing, stale, truncated, of another version, or readable by others."""


class LaunchError(HPCRemoteError):
    """Processes could not be started or did not come up in time; the message ends with their last output."""


class AlreadyRunning(LaunchError):
    """A cluster of that profile and id lives already, or is being started or stopped by somebody else."""


class ClusterNotFound(HPCRemoteError):
    """No cluster of that profile and id runs here."""


class NotConnected(HPCRemoteError, ConnectionError):
    """No controller answers at the addresses that were tried, or the one we had went away."""


class Refused(NotConnected):
    """The controller answered and refused this client or engine, in its own words."""


class PayloadError(HPCRemoteError):
    """An object cannot be sent: it does not pickle, or there is no room for it."""


class NoEnginesRegistered(HPCRemoteError):
    """A view was asked to work and has no engines."""


class EngineError(HPCRemoteError):
    """An engine died or left while it owed a result.

    Attributes:
        engine_id: id of that engine, or None.
        cause: how it ended, as far as that can be known ("killed by SIGKILL").
        output: the last lines it wrote.
    """

    def __init__(
        self, message: str, *, engine_id: int | None = None, cause: str = "", output: str = ""
    ) -> None:
        super().__init__(message)
        self.engine_id = engine_id
        self.cause = cause
        self.output = output


class TaskAborted(HPCRemoteError):
    """The call was aborted before it started; it did not run on that engine."""


class UnmetDependency(HPCRemoteError):
    """A function's @require or @depend is not met on the engine; the function did not run."""


# The name in the document that specifies the API.
UnmetDependencyError = UnmetDependency


class RemoteError(HPCRemoteError):
    """User code raised an exception on an engine.

    The exception itself is the ``__cause__`` where it could be rebuilt here.

    Attributes:
        ename: name of the exception's class ("ZeroDivisionError").
        evalue: its message.
        traceback: the remote traceback as text, with source lines.
        engine_info: engine_id, rank, host, engine_uuid of the engine, and the method that was called.
    """

    def __init__(
        self, ename: str, evalue: str, traceback: str = "", engine_info: dict[str, object] | None = None
    ) -> None:
        super().__init__(ename, evalue, traceback, engine_info)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine_info = engine_info or {}

    @property
    def where(self) -> str:
        """The engine in words, as in ``engine 1 (rank 1 on node7)``."""
        info = self.engine_info
        if "engine_id" not in info:
            return "an engine"
        rank = f"rank {info['rank']} " if info.get("rank") is not None else ""
        host = f"on {info['host']}" if info.get("host") else ""
        detail = f" ({(rank + host).strip()})" if rank or host else ""
        return f"engine {info['engine_id']}{detail}"

    def __str__(self) -> str:
        """The exception, where it was raised, and its remote traceback."""
        head = f"{self.ename}({self.evalue}) on {self.where}"
        return f"{head}\n{self.traceback.rstrip()}" if self.traceback else head

    def render_traceback(self) -> list[str]:
        """Return the remote traceback as lines (IPython shows these)."""
        return str(self).splitlines()

    def print_traceback(self, excid: int | None = None) -> None:
        """Write the remote traceback to standard output."""
        import sys

        sys.stdout.write("\n".join(self.render_traceback()) + "\n")


class CompositeError(RemoteError):
    """One or more of several engines raised.

    Attributes:
        elist: ``(ename, evalue, traceback, engine_info)`` of each, in view order.
        errors: the exceptions themselves (RemoteError, EngineError, ...), in view order.
    """

    #: How many tracebacks are printed in full; the others are counted.
    tb_limit = 4

    def __init__(self, message: str, errors: Sequence[BaseException]) -> None:
        super().__init__("CompositeError", message)
        self.msg = message
        self.errors = list(errors)

    @property
    def elist(self) -> list[tuple[str, str, str, dict[str, object]]]:
        """``(ename, evalue, traceback, engine_info)`` of each error, in view order."""
        return [_as_row(error) for error in self.errors]

    def __str__(self) -> str:
        """One line for each error, then the first tracebacks."""
        return "\n".join(self.render_traceback())

    def __reduce__(self) -> tuple[object, ...]:
        return (CompositeError, (self.msg, self.errors))

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """Return the lines of error number *excid*, or of the first few."""
        if excid is not None:
            return str(self._pick(excid)).splitlines()
        lines = [self.msg]
        for error in self.errors[: self.tb_limit]:
            lines += ["", *str(error).splitlines()]
        if (hidden := len(self.errors) - self.tb_limit) > 0:
            lines += ["", f"... and {hidden} more: see .elist, or raise_exception(i)"]
        return lines

    def print_traceback(self, excid: int | None = None) -> None:
        """Write one error's traceback, or the first few, to standard output."""
        import sys

        sys.stdout.write("\n".join(self.render_traceback(excid)) + "\n")

    def raise_exception(self, excid: int = 0) -> None:
        """Raise error number *excid*.

        Raises:
            IndexError: there is no such error.
        """
        raise self._pick(excid)

    def _pick(self, excid: int) -> BaseException:
        try:
            return self.errors[excid]
        except IndexError:
            raise IndexError(f"there are {len(self.errors)} errors, no number {excid}") from None


def _as_row(error: BaseException) -> tuple[str, str, str, dict[str, object]]:
    if isinstance(error, RemoteError):
        return (error.ename, error.evalue, error.traceback, error.engine_info)
    info: dict[str, object] = {}
    if isinstance(error, EngineError) and error.engine_id is not None:
        info["engine_id"] = error.engine_id
    return (type(error).__name__, str(error), "", info)
