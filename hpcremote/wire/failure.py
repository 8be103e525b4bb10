"""An exception on its way from engine to client.

::

    engine: except ... as e ──capture──▶ bytes ──▶ client: rebuild ──▶ RemoteError, its __cause__ e again

The text of the traceback is made on the engine, where the source lines are. The exception itself travels
too, where it pickles. Neither end ever fails over an exception that misbehaves, and sizes are bounded.
"""

from __future__ import annotations

import pickle
import sys
import traceback

import msgspec

from hpcremote.errors import HPCRemoteError, RemoteError
from hpcremote.wire.pickler import ResultPickler, fast_dumps, thorough_dumps

#: Bounds, in characters (bytes for the pickled exception).
MAX_VALUE = 16_384
MAX_TRACEBACK = 65_536
MAX_PICKLE = 1 << 20
#: A traceback with more frames than this shows its first and last ones.
MAX_FRAMES = 60
_FIRST_FRAMES = 20
_MAX_CHAIN = 20

_OURS = __file__.rpartition("/wire/")[0] + "/"


class Failure(msgspec.Struct, array_like=True):
    """An exception: its class' name, its message, its traceback as text, and itself pickled, if it can be."""

    ename: str
    evalue: str
    traceback: str
    exception: bytes = b""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Failure).decode


def capture(error: BaseException) -> bytes:
    """Return *error* and its traceback, without hpcremote's own frames, in bytes. Never fails."""
    ename = type(error).__name__
    evalue = _clip(_text(error), MAX_VALUE)
    lines = _clip(_traceback(error, ename, evalue), MAX_TRACEBACK)
    return _encode(Failure(_utf8(ename), _utf8(evalue), _utf8(lines), _pickled(error)))


def rebuild(data: bytes, engine_info: dict[str, object]) -> HPCRemoteError:
    """Return what to raise for a captured exception. Never fails.

    A RemoteError, with the original exception as its ``__cause__`` where that can be rebuilt. Where the
    original is an error of hpcremote (UnmetDependency, PayloadError, ...), that one, naming the engine.
    """
    try:
        failure = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"the engine's report cannot be read: {error}"
        return RemoteError("UnreadableFailure", message, "", engine_info)
    remote = RemoteError(failure.ename, failure.evalue, failure.traceback, engine_info)
    original = _unpickled(failure.exception)
    if isinstance(original, HPCRemoteError) and not isinstance(original, RemoteError):
        return _own(original, failure, remote)
    if original is not None:
        remote.__cause__ = original
    return remote


def _own(original: HPCRemoteError, failure: Failure, remote: RemoteError) -> HPCRemoteError:
    try:
        own = type(original)(f"{failure.evalue} [{remote.where}]")
    except Exception:  # noqa: BLE001 - a subclass of the user's with other arguments
        remote.__cause__ = original
        return remote
    own.__dict__.update(vars(original))
    own.engine_info = remote.engine_info  # type: ignore[attr-defined]
    own.__cause__ = remote
    return own


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__
        return f"<{type(error).__name__} whose message cannot be shown>"


def _traceback(error: BaseException, ename: str, evalue: str) -> str:
    try:
        _cut_chain(error)
        whole = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        _trim(whole)
        text = "".join(whole.format())
    except Exception:  # noqa: BLE001 - broken exceptions must be reported like any other
        return f"{ename}: {evalue}\n"
    return text + _old_notes(error)


def _old_notes(error: BaseException) -> str:
    if sys.version_info >= (3, 11):
        return ""
    return "".join(f"{note}\n" for note in getattr(error, "__notes__", ()))


def _trim(whole: traceback.TracebackException) -> None:
    """Take hpcremote's own frames, and the middle of endless recursion, out of it and its causes."""
    todo: list[traceback.TracebackException | None] = [whole]
    while todo:
        item = todo.pop()
        if item is None:
            continue
        item.stack[:] = [frame for frame in item.stack if not frame.filename.startswith(_OURS)]
        if len(item.stack) > MAX_FRAMES:
            hidden = len(item.stack) - MAX_FRAMES
            gap = traceback.FrameSummary(f"<{hidden} frames left out>", 0, "...", lookup_line=False, line="")
            item.stack[_FIRST_FRAMES : _FIRST_FRAMES + hidden] = [gap]
        todo += [item.__cause__, item.__context__, *(getattr(item, "exceptions", None) or ())]


def _cut_chain(error: BaseException) -> None:
    """End a chain of causes that is too long to be read (or formatted)."""
    at: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if at is None:
            return
        at = at.__cause__ or at.__context__
    if at is not None:
        at.__cause__ = at.__context__ = None


def _clip(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head, tail = limit // 4, limit - limit // 4
    return f"{text[:head]}\n... {len(text) - limit} characters left out ...\n{text[-tail:]}"


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _pickled(error: BaseException) -> bytes:
    try:
        stream = fast_dumps(error) or thorough_dumps(ResultPickler, error)
    except Exception:  # noqa: BLE001 - then it does not travel; its text does
        return b""
    return stream if len(stream) <= MAX_PICKLE else b""


def _unpickled(stream: bytes) -> BaseException | None:
    if not stream:
        return None
    try:
        found = pickle.loads(stream)
    except Exception:  # noqa: BLE001 - a class that is not here, or whose __init__ wants other arguments
        return None
    return found if isinstance(found, BaseException) else None
