"""What one rank and the controller have said to each other, so that it can go on over another connection.

Between the two is a node agent, which may die with messages in its hands. So each end counts the batches that
it has taken, and keeps those that it sent until it hears that they were taken::

    rank ──Resume(session, taken)──▶ controller        a connection begins; nothing else before
    rank ◀──Resumed(taken, known)── controller         now each sends again what the other one lacks
    rank ◀──────── Ack(taken) ────▶ controller         every so often: what need not be kept any more

Every batch arrives once and in order, over however many connections, unless one end gave the session up
(``known`` is false then, and all begins anew). Nobody in between looks into any of this. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from hpcremote.wire.frames import Frame, FrameError
from hpcremote.wire.messages import PROTOCOL, Count

#: The first byte of what is said about a session.
MAGIC = bytes([0x40 | PROTOCOL])
_FIRST = MAGIC[0]
#: An Ack is due after this many batches, or bytes of payload frames.
BATCHES, BYTES = 16, 1 << 20

Batch = TypeVar("Batch")


class Resume(msgspec.Struct, array_like=True, tag="resume"):
    """A rank begins a connection. ``session`` is its uid; empty: nothing is counted."""

    session: str
    taken: Count = 0


class Resumed(msgspec.Struct, array_like=True, tag="resumed"):
    """The controller's answer. ``known``: it has the session."""

    taken: Count
    known: bool


class Ack(msgspec.Struct, array_like=True, tag="ack"):
    """So many batches have been taken."""

    taken: Count


Control = Resume | Resumed | Ack

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Control).decode


def is_control(head: Any) -> bool:
    """Say whether a batch that begins so is about the session."""
    return bool(len(head)) and head[0] == _FIRST


def encode(control: Control) -> bytes:
    """Return the one frame of a batch that says this."""
    return MAGIC + _encode(control)


def decode(head: bytes, frames: Sequence[Frame] = ()) -> Control:
    """Return what such a batch says.

    Raises:
        FrameError: the bytes say nothing of the kind.
    """
    if frames:
        raise FrameError(f"{len(frames)} frames with a word about the session, which has none")
    try:
        word: Control = _decode(memoryview(head)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from None
    return word


class Session(Generic[Batch]):
    """One end of a session.

    Attributes:
        taken: how many batches have come.
    """

    # There is one for every rank, and seldom anything in it.
    __slots__ = ("_kept", "_sent", "_unsaid", "_unsaid_bytes", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self._sent = 0
        self._kept: list[Batch] = []  # the last ones that were sent
        self._unsaid = self._unsaid_bytes = 0

    @property
    def kept(self) -> int:
        """How many batches are kept because the other end may lack them."""
        return len(self._kept)

    def add(self, batch: Batch) -> None:
        """A batch is sent."""
        self._sent += 1
        self._kept.append(batch)

    def take(self, size: int) -> bool:
        """A batch with so many bytes in payload frames has come; return whether an Ack is due."""
        self.taken += 1
        self._unsaid += 1
        self._unsaid_bytes += size
        return self._unsaid >= BATCHES or self._unsaid_bytes >= BYTES

    def ack(self) -> bytes:
        """Return the frame that says what has been taken."""
        self._unsaid = self._unsaid_bytes = 0
        return encode(Ack(self.taken))

    def acknowledged(self, taken: int) -> None:
        """The other end has taken so many.

        Raises:
            FrameError: that cannot be.
        """
        if taken > self._sent:
            raise FrameError(f"{taken} batches are said to have been taken, of {self._sent} that were sent")
        del self._kept[: max(0, len(self._kept) - (self._sent - taken))]

    def lacking(self, taken: int) -> list[Batch]:
        """Return what the other end, which has taken so many, has to be sent again.

        Raises:
            FrameError: that cannot be, or it is not here any more.
        """
        self.acknowledged(taken)
        if self._sent - taken != len(self._kept):
            raise FrameError(f"batch {taken + 1} is lacking, which was said to have been taken")
        return list(self._kept)
