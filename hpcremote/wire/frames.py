"""Messages to frames and back.

One ZeroMQ message carries a *batch*: a head frame (one byte of protocol, then the headers as one
msgpack array) and behind it the payload frames of each header in turn. Any bytes in give a list of
messages or :class:`FrameError`, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from hpcremote.wire.messages import PROTOCOL, AnyMessage

#: A payload frame: bytes on the way out, the transport's own frame object on the way in.
Frame = Any
#: A message and the frames that belong to it.
Parcel = tuple[AnyMessage, Sequence[Frame]]

_MAGIC = bytes([PROTOCOL])
_SHORT = 1024
_NO_FRAMES: tuple[Frame, ...] = ()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[AnyMessage]).decode


class FrameError(Exception):
    """Bytes that are not a batch of messages of this protocol."""


def pack(parcels: Sequence[Parcel]) -> list[Frame]:
    """Return the frames of one batch."""
    if len(parcels) == 1:
        message, payload = parcels[0]
        head = _MAGIC + _encode((message,))
        return [head, *payload] if payload else [head]
    headers: list[AnyMessage] = []
    frames: list[Frame] = []
    for message, payload in parcels:
        headers.append(message)
        frames += payload
    return [_MAGIC + _encode(headers), *frames]


def unpack(head: bytes, frames: Sequence[Frame] = _NO_FRAMES) -> list[Parcel]:
    """Return the messages of a batch, each with its frames.

    Raises:
        FrameError: the bytes are not a batch, or the number of frames is not what the headers say.
    """
    if not len(head) or head[0] != PROTOCOL:
        raise FrameError(f"not a message of protocol {PROTOCOL}: begins with {bytes(head[:4])!r}")
    try:
        # Of a short one a copy is quicker made than a view.
        messages = _decode(head[1:] if len(head) < _SHORT else memoryview(head)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from None
    if not messages:
        raise FrameError("a batch without messages")
    if not frames and len(messages) == 1 and not messages[0].nframes:
        return [(messages[0], _NO_FRAMES)]
    return _deal(messages, frames)


def _deal(messages: list[AnyMessage], frames: Sequence[Frame]) -> list[Parcel]:
    parcels: list[Parcel] = []
    at = 0
    for message in messages:
        count = message.nframes
        if count < 0 or at + count > len(frames):
            raise FrameError(f"{len(frames)} frames where the headers announce more")
        parcels.append((message, frames[at : at + count] if count else _NO_FRAMES))
        at += count
    if at != len(frames):
        raise FrameError(f"{len(frames)} frames where the headers announce {at}")
    return parcels
