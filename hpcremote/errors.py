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
    ├── NotReady                   (also a ValueError and a RuntimeError) it is not known yet how a call went
    ├── PayloadError               an argument or result that cannot be sent: names the argument
    ├── SaveError                  a namespace cannot be saved or put back: names the file
    ├── NoEnginesRegistered        a view without engines was asked to work
    ├── EngineError                an engine died or left while it owed a result: which, how, its last output
    ├── TaskAborted                the call was aborted before it started
    ├── NotEnoughTime              the engines' job ends before the call could: it was begun nowhere
    ├── UnmetDependency            what @require or @depend asked for is not there
    ├── Released                   this rank waited in MPI for one that will not come: in what, and where
    └── RemoteError                user code raised on an engine
        └── CompositeError         ... on one or more of several engines
            └── CollectiveError    ... while others waited for them in MPI, and had to be released

``TimeoutError`` is Python's own: the result is not ready *yet*, nothing is lost.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence

TimeoutError = builtins.TimeoutError

_OURS = __file__.rpartition("/")[0] + "/"


class HPCRemoteError(Exception):
    """Root of all errors of hpcremote."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: where the user called us, and what is wrong (on the engine, too)."""
        import traceback

        frames = traceback.extract_tb(self.__traceback__)
        starts = [index + 1 for index, frame in enumerate(frames) if "/IPython/core/" in frame.filename]
        theirs = [frame for frame in frames[max(starts, default=0) :] if not frame.filename.startswith(_OURS)]
        called = "".join(["Traceback (most recent call last):\n", *traceback.format_list(theirs)])
        return [*(called.splitlines() if theirs else ()), *f"{type(self).__name__}: {self}".splitlines()]


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


class NotReady(HPCRemoteError, ValueError, RuntimeError):
    """Something was asked of a result that is not there yet."""


class PayloadError(HPCRemoteError):
    """An object cannot be sent: it does not pickle, or there is no room for it."""


class SaveError(HPCRemoteError):
    """A namespace cannot be saved to a file, or put back from one; the message names it and says why."""


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


class NotEnoughTime(HPCRemoteError):
    """The engines' job ends before the time that the call needs; the call was not begun on any engine."""


class UnmetDependency(HPCRemoteError):
    """A function's @require or @depend is not met on the engine; the function did not run."""


class Released(HPCRemoteError):
    """This rank waited in an MPI operation that cannot complete any more, and was let out of it.

    Attributes:
        operation: the operation ("Allreduce").
        filename: file of the user's code that called it.
        lineno: line in that file.
    """

    def __init__(self, message: str, *, operation: str = "", filename: str = "", lineno: int = 0) -> None:
        super().__init__(message)
        self.operation = operation
        self.filename = filename
        self.lineno = lineno


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
        """Return the remote traceback as lines."""
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


class CollectiveError(CompositeError):
    """A call failed on some engines while others waited for them in MPI; these have been released.

    All engines are back at work, with their namespaces; communicators were made anew where that was needed.

    Attributes:
        finished: the engines on which the call finished.
        released: what each engine that waited was in, by engine id: "Allreduce at solve.py:12".
        failed: the error of each engine on which the call failed, by engine id.
    """

    def __init__(
        self, message: str, errors: Sequence[BaseException], engines: Sequence[int], finished: Sequence[int]
    ) -> None:
        super().__init__(message, errors)
        self.engines = list(engines)
        self.finished = list(finished)
        pairs = list(zip(self.engines, self.errors, strict=True))
        self.released = {engine: _waited(error) for engine, error in pairs if isinstance(error, Released)}
        self.failed = {engine: error for engine, error in pairs if not isinstance(error, Released)}

    def __reduce__(self) -> tuple[object, ...]:
        return (CollectiveError, (self.msg, self.errors, self.engines, self.finished))

    def table(self) -> str:
        """Return one line for each group of engines to which the same happened."""
        groups: dict[str, list[int]] = {}
        for engine, error in self.failed.items():
            groups.setdefault(f"failed: {_in_one_line(error)}", []).append(engine)
        for engine, where in self.released.items():
            groups.setdefault(f"released from {where}", []).append(engine)
        for engine in self.finished:
            groups.setdefault("finished", []).append(engine)
        rows = [(f"engine{'s' if len(ids) > 1 else ''} {spans(ids)}", what) for what, ids in groups.items()]
        width = max(len(who) for who, _ in rows)
        return "\n".join(f"  {who:<{width}}  {what}" for who, what in rows)

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """Return the table and the tracebacks of the first that failed, or the lines of error *excid*."""
        if excid is not None:
            return super().render_traceback(excid)
        lines = [self.msg, *self.table().splitlines()]
        for error in list(self.failed.values())[: self.tb_limit]:
            lines += ["", *str(error).splitlines()]
        if (hidden := len(self.failed) - self.tb_limit) > 0:
            lines += ["", f"... and {hidden} more: see .failed"]
        return lines


def _waited(error: Released) -> str:
    place = f" at {error.filename}:{error.lineno}" if error.filename else ""
    return f"{error.operation or 'MPI'}{place}"


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, RemoteError):
        return f"{error.ename}({error.evalue})".partition("\n")[0]
    return f"{type(error).__name__}({error})".partition("\n")[0]


def spans(ids: Sequence[int]) -> str:
    """Return ids in few words: ``0-3, 7``."""
    found: list[list[int]] = []
    for one in ids:
        if found and one == found[-1][1] + 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in found)


def _as_row(error: BaseException) -> tuple[str, str, str, dict[str, object]]:
    if isinstance(error, RemoteError):
        return (error.ename, error.evalue, error.traceback, error.engine_info)
    info: dict[str, object] = {}
    if isinstance(error, EngineError) and error.engine_id is not None:
        info["engine_id"] = error.engine_id
    return (type(error).__name__, str(error), "", info)
