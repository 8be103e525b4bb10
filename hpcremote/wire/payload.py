"""Objects to pieces and back; pieces into what goes over the wire.

::

    object ──dump──▶ pieces ──to_part──▶ Part + frames ──▶ wire
                       │                 Part + blob       (big pieces in shared memory)
    object ◀──load── pieces ◀─from_part─ Part + writable buffers

*Pieces* are the pickle stream (protocol 5) and behind it the memory of the arrays in it, not copied.
The receiver's buffers are writable, so arrays arrive writable.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from hpcremote.errors import PayloadError
from hpcremote.wire import culprit, pickler
from hpcremote.wire.messages import Part
from hpcremote.wire.pickler import Buffer, OnBuffer

#: Pieces of this many bytes or more travel on their own.
BIG = 65536

_loads = pickle.loads
#: A call without arguments of a function that a digest names, ready to be sent: many calls are such.
_NO_ARGUMENTS: list[Buffer] = [pickle.dumps((None, (), {}), 5)]
_NO_ARGUMENTS_PART = Part(bytes(_NO_ARGUMENTS[0]), [len(_NO_ARGUMENTS[0])])
#: The same of None, which many functions return.
_NONE: list[Buffer] = [pickle.dumps(None, 5)]
_NONE_PART = Part(bytes(_NONE[0]), [len(_NONE[0])])
_Dump = Callable[[Any, "OnBuffer | None"], bytes]


def dump(obj: Any, *, what: str = "object") -> list[Buffer]:
    """Return the pieces of *obj*, on its way to an engine.

    Raises:
        PayloadError: it cannot be pickled; the message calls it *what* and says which part of it.
    """
    try:
        return _pieces(obj, _dump_value)
    except Exception as error:
        raise _refusal(obj, what, error) from error


def dump_call(
    function: bytes | None, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, name: str = "the function"
) -> list[Buffer]:
    """Return the pieces of a call. *function* is its packed form, or None when a digest names it.

    Raises:
        PayloadError: an argument cannot be pickled; the message says which.
    """
    if function is None and not args and not kwargs:
        return _NO_ARGUMENTS
    try:
        return _pieces((function, args, kwargs), _dump_value)
    except Exception as error:  # noqa: BLE001 - raised below, by the name of the argument
        failed = error
    for what, value in _arguments(args, kwargs):
        dump(value, what=f"{what} of {name}")
    raise _refusal((args, kwargs), f"the arguments of {name}", failed) from failed


def dump_result(obj: Any) -> list[Buffer]:
    """Return the pieces of *obj*, on its way to a client.

    Raises:
        PayloadError: it cannot be pickled.
    """
    if obj is None:
        return _NONE
    try:
        return _pieces(obj, _dump_result)
    except Exception as error:
        what = f"the result ({_article(type(obj).__name__)})"
        raise _refusal(obj, f"{what} cannot be sent", error, _dump_result) from error


def load(pieces: Sequence[Buffer]) -> Any:
    """Return the object that *pieces* are of. Its arrays live in the buffers, which are not copied."""
    if len(pieces) == 1:
        return _loads(pieces[0])
    return _loads(pieces[0], buffers=pieces[1:])


def to_part(pieces: Sequence[Buffer], blob: str = "") -> tuple[Part, list[Buffer]]:
    """Return the part that announces *pieces*, and the frames behind it (none when they stand in *blob*)."""
    if pieces is _NO_ARGUMENTS:
        return _NO_ARGUMENTS_PART, []
    if pieces is _NONE:
        return _NONE_PART, []
    if len(pieces) == 1:
        stream = pieces[0]
        if len(stream) < BIG:
            return Part(bytes(stream), [len(stream)]), []
    sizes = [_size(piece) for piece in pieces]
    data = b"".join([piece for piece, size in zip(pieces, sizes, strict=True) if size < BIG])
    frames = [] if blob else big_pieces(pieces)
    return Part(data, sizes, len(frames), blob), frames


def big_pieces(pieces: Sequence[Buffer]) -> list[Buffer]:
    """Return the pieces that travel on their own, in order."""
    return [piece for piece in pieces if _size(piece) >= BIG]


def from_part(part: Part, bigs: Sequence[Buffer]) -> list[Buffer]:
    """Return the pieces of *part*; *bigs* are its frames, or what stands in its blob, writable.

    Raises:
        PayloadError: what came is not what the part announces.
    """
    sizes = part.sizes
    if len(sizes) == 1 and not bigs and sizes[0] == len(part.data) < BIG:
        return [part.data]
    _check(part, bigs)
    data = memoryview(part.data)
    starts = accumulate((size if size < BIG else 0 for size in sizes), initial=0)
    rest = iter(bigs)
    return [
        next(rest) if size >= BIG else data[at : at + size] if index == 0 else bytearray(data[at : at + size])
        for index, (at, size) in enumerate(zip(starts, sizes, strict=False))
    ]


def _check(part: Part, bigs: Sequence[Buffer]) -> None:
    if not part.sizes:
        raise PayloadError("an empty payload")
    if any(type(size) is not int or size < 0 for size in part.sizes):
        raise PayloadError("a payload with a piece of negative size")
    small = sum(size for size in part.sizes if size < BIG)
    if small != len(part.data):
        raise PayloadError(f"a payload of {len(part.data)} bytes that announces {small}")
    expected = [size for size in part.sizes if size >= BIG]
    came = [_size(piece) for piece in bigs]
    if came != expected:
        if 0 in came and len(came) == len(expected):  # see net.stream
            raise PayloadError(f"there is no memory for its {sum(expected):,} bytes")
        raise PayloadError(f"a payload with buffers of {came} bytes that announces {expected}")


def use_pickler(name: str) -> None:
    """Choose how this process pickles values: ``cloudpickle`` (as at the start), ``pickle`` or ``dill``.

    Raises:
        ValueError: there is no such pickler.
        ImportError: dill is not installed.
    """
    global _dump_value, _dump_result
    if name not in _PICKLERS:
        raise ValueError(f"no pickler is called {name!r}: use one of {', '.join(_PICKLERS)}")
    if name == "dill":
        try:
            import dill  # noqa: F401
        except ImportError:
            raise ImportError(
                "dill is not installed here: pip install 'hpcremote[dill]', for clients and engines"
            ) from None
    _dump_value, _dump_result = _PICKLERS[name]


def _cloud_value(obj: Any, on_buffer: OnBuffer | None) -> bytes:
    return pickler.thorough_dumps(pickler.CallPickler, obj, on_buffer)


def _cloud_result(obj: Any, on_buffer: OnBuffer | None) -> bytes:
    return pickler.thorough_dumps(pickler.ResultPickler, obj, on_buffer)


def _dill(obj: Any, on_buffer: OnBuffer | None) -> bytes:
    import dill

    return pickle.dumps(_Dilled(dill.dumps(obj, protocol=5)), 5)


class _Dilled:
    """A stream of dill's inside one of pickle's, so that the receiver needs no setting."""

    def __init__(self, stream: bytes) -> None:
        self.stream = stream

    def __reduce__(self) -> tuple[Any, ...]:
        return undill, (self.stream,)


def undill(stream: bytes) -> Any:
    """Return the object that dill made *stream* of."""
    import dill

    return dill.loads(stream)


_PICKLERS: dict[str, tuple[_Dump, _Dump]] = {
    "cloudpickle": (_cloud_value, _cloud_result),
    "pickle": (pickler.plain_dumps, pickler.plain_dumps),
    "dill": (_dill, _dill),
}
_dump_value, _dump_result = _PICKLERS["cloudpickle"]


def _pieces(obj: Any, thorough: _Dump) -> list[Buffer]:
    buffers: list[pickle.PickleBuffer] = []
    stream = None if thorough in _OWN_WAY else pickler.fast_dumps(obj, buffers.append)
    if stream is None:
        buffers.clear()
        stream = thorough(obj, buffers.append)
    return [stream, *(buffer.raw() for buffer in buffers)] if buffers else [stream]


#: These are asked first: they were chosen.
_OWN_WAY = (pickler.plain_dumps, _dill)


def _size(piece: Buffer) -> int:
    return piece.nbytes if isinstance(piece, memoryview) else len(piece)


def _arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    positional = [(f"argument {number}", value) for number, value in enumerate(args, 1)]
    return positional + [(f"argument {name!r}", value) for name, value in kwargs.items()]


def _refusal(obj: Any, what: str, error: Exception, thorough: _Dump | None = None) -> PayloadError:
    if isinstance(error, PayloadError):
        return error
    if isinstance(error, MemoryError):
        return PayloadError(f"{what}: {culprit.reason(error)}")
    dumper = thorough or _dump_value
    path, part, cause = culprit.blame(obj, lambda value: _pieces(value, dumper), error)
    inside = f" at {path.strip()}" if path else ""
    kind = f" ({_article(type(part).__name__)})" if path else ""
    return PayloadError(f"{what}{inside}{kind}: {culprit.reason(cause)}")


def _article(word: str) -> str:
    return f"an {word}" if word[:1].lower() in "aeiou" else f"a {word}"
