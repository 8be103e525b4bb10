"""Batches of frames over a Unix stream socket: the link between processes of one machine.

A ZeroMQ ``ipc`` link passes every message through an I/O thread at each end, which costs a call four
wake-ups more than it needs and most of its latency (measured: docs/explanation/performance.md). On
one machine there is nothing to reconnect, route or encrypt, so a plain socket does.

::

    batch  =  magic "hpc1"   u32 number of frames   u64 size of each   the frames

Nothing here blocks: what the kernel does not take at once waits in ``backlog`` until :meth:`flush`.
A frame that no memory can hold is read past, and arrives empty: its message says how long it was.
The end of the connection is the end of the peer, seen at once.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

from hpcremote.wire.frames import FrameError

_MAGIC = b"hpc1"
_HEAD = struct.Struct("<4sI")
_SIZE = struct.Struct("<Q")
_HEAD_OF_ONE = struct.Struct("<4sIQ")  # both, for a batch of one frame
#: How much is read at once; also the limit for frames that are cut out of what was read.
CHUNK = 1 << 16
#: At most this many frames in a batch, and bytes in a frame: beyond, it is garbage.
MAX_FRAMES = 1 << 20
MAX_FRAME = 1 << 42
# How many pieces one sendmsg takes (IOV_MAX is 1024 on Linux).
_PIECES = 512
# Bytes that it costs to keep a piece, besides its own.
_KEPT = 200

Batch = tuple[bytes, list[memoryview]]


class Closed(Exception):
    """The other end is gone."""


class Stream:
    """One end of a connected stream socket.

    Args:
        sock: the socket; it is made non-blocking and belongs to this object.
        keep: whether what is sent stays as it is until it went out. If not, what has to wait is copied.

    Attributes:
        backlog: what waits to go out.
    """

    def __init__(self, sock: socket.socket, *, keep: bool) -> None:
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        self._sock = sock
        self._keep = keep
        self.backlog: deque[memoryview] = deque()
        self._waiting = 0  # bytes that the backlog holds
        self._buffer = memoryview(bytearray(CHUNK))
        self._text = b""  # read, not yet understood
        self._need = _HEAD.size  # how much of it is needed to go on
        self._sizes: list[int] = []  # of the frames of the batch that is being read
        self._frames: list[Any] = []
        self._filling: memoryview | None = None  # a large frame that is being read into
        self._filled = 0
        self._skipping = 0  # bytes to be read past

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether something waits to go out."""
        return bool(self.backlog)

    @property
    def waiting(self) -> int:
        """How much memory holds what waits to go out, in bytes."""
        return self._waiting + _KEPT * len(self.backlog)

    # ------------------------------------------------------------ out

    def send(self, frames: Sequence[Any]) -> None:
        """Send a batch, or what the kernel takes of it; the rest follows by :meth:`flush`.

        Raises:
            Closed: the other end is gone.
        """
        if len(frames) == 1 and not self.backlog and len(frames[0]) < CHUNK:
            self._send_small(frames[0])
            return
        views = [memoryview(frame).cast("B") if len(frame) else memoryview(b"") for frame in frames]
        head = _HEAD.pack(_MAGIC, len(views)) + b"".join([_SIZE.pack(len(view)) for view in views])
        pieces = [memoryview(head), *(view for view in views if len(view))]
        if self.backlog:
            self._queue(pieces)
        else:
            self._queue(self._push(pieces))

    def _send_small(self, frame: bytes) -> None:
        """Send a batch of one small frame: nearly every message."""
        text = _HEAD_OF_ONE.pack(_MAGIC, 1, len(frame)) + frame
        try:
            sent = self._sock.send(text)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise Closed(str(error)) from None
        if sent < len(text):
            self.backlog.append(memoryview(text)[sent:])
            self._waiting += len(text) - sent

    def flush(self) -> None:
        """Send what waits, as far as the kernel takes it.

        Raises:
            Closed: the other end is gone.
        """
        while self.backlog:
            # Only so many at a time: what waits behind a peer that does not read may be long.
            waiting = list(itertools.islice(self.backlog, _PIECES))
            try:
                left = self._push(waiting)
            except Closed:
                self._forget_backlog()
                raise
            self._waiting -= sum(map(len, waiting)) - sum(map(len, left))
            for _ in range(len(waiting) - len(left)):
                self.backlog.popleft()
            if left:
                self.backlog[0] = left[0]  # a part of it may have gone out
                return

    def _push(self, pieces: list[memoryview]) -> list[memoryview]:
        """Hand *pieces* to the kernel; return those that it did not take."""
        while pieces:
            try:
                sent = self._sock.sendmsg(pieces[:_PIECES])
            except BlockingIOError:
                break
            except OSError as error:
                raise Closed(str(error)) from None
            pieces = _after(pieces, sent)
        return pieces

    def _queue(self, pieces: list[memoryview]) -> None:
        for piece in pieces:
            self.backlog.append(piece if self._keep else memoryview(bytes(piece)))
            self._waiting += len(piece)

    def _forget_backlog(self) -> None:
        self.backlog.clear()
        self._waiting = 0

    # ------------------------------------------------------------ in

    def receive(self) -> list[Batch]:
        """Return the batches that are complete by now; maybe none.

        Raises:
            Closed: the other end is gone, and everything it sent has been returned.
            FrameError: what came is not of this protocol.
        """
        try:
            if self._filling is not None:
                return self._fill()
            if self._skipping:
                return self._skip()
            count = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Closed(str(error)) from None
        if not count:
            raise Closed("end of stream")
        text = bytes(self._buffer[:count])
        if self._text:
            text = self._text + text
        elif not self._sizes and count > _HEAD_OF_ONE.size:
            magic, frames, size = _HEAD_OF_ONE.unpack_from(text)
            if magic == _MAGIC and frames == 1 and size == count - _HEAD_OF_ONE.size:
                return [(text[_HEAD_OF_ONE.size :], [])]  # one small message: nearly always
        self._text = text
        return self._parse() if len(self._text) >= self._need else []

    def _fill(self) -> list[Batch]:
        assert self._filling is not None  # noqa: S101 - for the type checker
        count = self._sock.recv_into(self._filling[self._filled :])
        if not count:
            raise Closed("end of stream")
        self._filled += count
        if self._filled < len(self._filling):
            return []
        self._frames.append(self._filling)
        self._filling = None
        return self._parse()

    def _skip(self) -> list[Batch]:
        count = self._sock.recv_into(self._buffer[: self._skipping])
        if not count:
            raise Closed("end of stream")
        self._skipping -= count
        return [] if self._skipping else self._parse()

    def _parse(self) -> list[Batch]:
        batches: list[Batch] = []
        text = self._text
        at = 0
        while True:
            if not self._sizes:
                at, complete = self._read_sizes(text, at)
                if not complete:
                    break
            while len(self._frames) < len(self._sizes):
                size = self._sizes[len(self._frames)]
                if len(text) - at < size:
                    break
                # The head is read only; payload frames must be writable.
                frame = text[at : at + size]
                self._frames.append(memoryview(bytearray(frame)) if self._frames else frame)
                at += size
            else:
                batches.append((self._frames[0], self._frames[1:]))
                self._sizes, self._frames = [], []
                continue
            at = self._wait_for_frame(text, at, self._sizes[len(self._frames)])
            break
        self._text = text[at:]
        return batches

    def _read_sizes(self, text: bytes, at: int) -> tuple[int, bool]:
        """Read the start of a batch at *at*; return where its frames begin, or what is missing."""
        if len(text) - at < _HEAD.size:
            self._need = _HEAD.size
            return at, False
        magic, count = _HEAD.unpack_from(text, at)
        if magic != _MAGIC or not 0 < count <= MAX_FRAMES:
            raise FrameError(f"not a batch of frames: begins with {text[at : at + 8]!r}")
        end = at + _HEAD.size + count * _SIZE.size
        if len(text) < end:
            self._need = end - at
            return at, False
        self._sizes = [size for (size,) in _SIZE.iter_unpack(text[at + _HEAD.size : end])]
        if max(self._sizes) > MAX_FRAME:
            raise FrameError(f"a frame of {max(self._sizes)} bytes is announced")
        return end, True

    def _wait_for_frame(self, text: bytes, at: int, size: int) -> int:
        """Prepare for a frame of which only a part is here; return up to where *text* was used."""
        if size < CHUNK:
            self._need = size
            return at
        try:
            # Memory is taken as it is filled (a bytearray is filled with zeros first): a claim costs nothing.
            self._filling = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        except (OSError, MemoryError):
            if not self._frames:  # it is the head
                raise FrameError(f"no memory for a frame of {size} bytes") from None
            self._frames.append(memoryview(b""))
            self._skipping = size - (len(text) - at)
            return len(text)
        self._filled = len(text) - at
        self._filling[: self._filled] = text[at:]
        return len(text)

    # ------------------------------------------------------------ the end

    def cut(self) -> None:
        """End the connection without sending what waits; :meth:`receive` will tell that it ended."""
        self._forget_backlog()
        with contextlib.suppress(OSError):  # the other end was faster
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def _after(pieces: list[memoryview], sent: int) -> list[memoryview]:
    """Return what is left of *pieces* behind their first *sent* bytes."""
    for index, piece in enumerate(pieces):
        if sent < len(piece):
            return [piece[sent:], *pieces[index + 1 :]] if sent else pieces[index:]
        sent -= len(piece)
    return []
