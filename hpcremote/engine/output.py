"""What a process writes to its standard output and error, whoever in it writes.

::

    print, C printf, child processes ──▶ fd 1, 2 ──▶ files <uid>.out, <uid>.err ──collect──▶ text

Files and not pipes: a full pipe would stop C code that prints while it holds the GIL, and the reader with
it. Nobody has to read a file. What was collected is given back to the file system, so that files stay
small, and the end of the error file tells others how a process died.
"""

from __future__ import annotations

import codecs
import ctypes
import os
import sys
import threading
from typing import Any, TextIO

#: What was read of a file is released when it exceeds this, but for its end.
RELEASE = 16 << 20
_KEPT = 64 << 10
_PAGE = 4096
_CHUNK = 1 << 20
_PUNCH_HOLE = 0x03  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_LINE_BUFFERED = 1  # _IOLBF


NOTHING = ("", "")
#: How much of the end of what a call writes is kept although it wrote too much.
_END = 2000


class _Stream:
    """One of the two: its file, and how far it was read."""

    def __init__(self, fd: int, path: str, libc: Any) -> None:
        self.fd = fd
        self.path = path
        self.original = os.dup(fd)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self.file = os.open(path, flags, 0o600)
        os.dup2(self.file, fd)
        self._libc = libc
        self.at = 0
        self._released = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self.allowance = sys.maxsize  # how much more the call may write
        self.left_out = 0  # how much it wrote beyond that

    def _size(self) -> int:
        return os.lseek(self.file, 0, os.SEEK_END)  # cheaper than fstat; nobody uses this offset

    def skip(self) -> None:
        """Go on from the end."""
        self.at = self._size()
        self._decoder.reset()

    def read(self, limit: int) -> str:
        """Return up to *limit* bytes of what is new, as text; never half a character."""
        size = self._size()
        if size <= self.at:
            return ""
        data = os.pread(self.file, min(limit, self.allowance, size - self.at), self.at)
        self.at += len(data)
        self.allowance -= len(data)
        if not self.allowance:
            self.left_out += size - self.at
            self.at = size
        if self.at - self._released > RELEASE:
            self._release()
        return self._decoder.decode(data)

    def end(self) -> str:
        """Return the end of what a call wrote beyond its allowance."""
        if not self.left_out:
            return ""
        self._decoder.reset()
        shown = min(self.left_out, _END)
        text = os.pread(self.file, shown, self.at - shown).decode("utf-8", "replace").lstrip("\ufffd")
        note = f"\n... {self.left_out - shown} bytes left out (see output_limit in the profile) ...\n"
        return note + text if shown < self.left_out else text

    def tail(self, size: int) -> str:
        """Return the last *size* bytes, as text."""
        end = self._size()
        start = max(0, end - min(size, _KEPT))
        return os.pread(self.file, end - start, start).decode("utf-8", "replace")

    def close(self) -> None:
        """Put the original back and remove the file."""
        os.dup2(self.original, self.fd)
        os.close(self.original)
        os.close(self.file)
        os.unlink(self.path)

    def _release(self) -> None:
        end = (self.at - _KEPT) // _PAGE * _PAGE
        # A file system that cannot do it keeps the text, which is all that happens.
        self._libc.fallocate(
            self.file,
            _PUNCH_HOLE,
            ctypes.c_int64(self._released),
            ctypes.c_int64(end - self._released),
        )
        self._released = end


class Capture:
    """Takes over file descriptors 1 and 2, from construction to :meth:`close`.

    Attributes:
        out_path: the file of standard output.
        err_path: the file of standard error.
        original_out: where standard output went before.
        original_err: where standard error went before.
    """

    def __init__(self, directory: str | os.PathLike[str], uid: str) -> None:
        self._libc = ctypes.CDLL(None)
        self._lock = threading.Lock()
        self.out_path = os.path.join(directory, f"{uid}.out")
        self.err_path = os.path.join(directory, f"{uid}.err")
        self.flush()
        self._out = _Stream(1, self.out_path, self._libc)
        try:
            self._err = _Stream(2, self.err_path, self._libc)
        except OSError:
            self._out.close()
            raise
        self.original_out = self._out.original
        self.original_err = self._err.original
        self._line_buffer()

    def _line_buffer(self) -> None:
        sys.stdout = _line_buffered(sys.stdout, 1)
        sys.stderr = _line_buffered(sys.stderr, 2)
        for name in ("stdout", "stderr"):
            stream = ctypes.c_void_p.in_dll(self._libc, name)
            self._libc.setvbuf(stream, None, _LINE_BUFFERED, ctypes.c_size_t(0))

    def begin(self, allowance: int) -> None:
        """Begin a call that may write *allowance* bytes to each; of more, only the end is kept."""
        out, err = self._out, self._err
        out.allowance = err.allowance = allowance
        out.left_out = err.left_out = 0

    def end(self) -> tuple[str, str]:
        """Return the ends of what the call wrote beyond its allowance; the rest of it has been collected."""
        out, err = self._out, self._err
        return (out.end(), err.end()) if out.left_out or err.left_out else NOTHING

    def mark(self) -> None:
        """Forget what was written so far: it belongs to no call."""
        with self._lock:
            if not self._quiet():
                self._out.skip()
                self._err.skip()

    def flush(self) -> None:
        """Write out what Python and C still hold back (at the end of a call, in the thread that ran it)."""
        for stream in (sys.stdout, sys.stderr):
            try:  # what contextlib.suppress does, without its calls: this is on the path of every call
                if stream is not None:
                    stream.flush()
            except (OSError, ValueError):  # the user closed it
                pass
        self._libc.fflush(None)

    def collect(self, limit: int = _CHUNK) -> tuple[str, str]:
        """Return what is new on standard output and error, up to *limit* bytes of each. From any thread."""
        with self._lock:
            return NOTHING if self._quiet() else (self._out.read(limit), self._err.read(limit))

    def _quiet(self) -> bool:
        """Say that nothing was written; asked twice a call."""
        seek, out, err = os.lseek, self._out, self._err
        return seek(out.file, 0, os.SEEK_END) == out.at and seek(err.file, 0, os.SEEK_END) == err.at

    def tail(self, size: int = _PAGE) -> str:
        """Return the last *size* bytes of standard error."""
        return self._err.tail(size)

    def close(self) -> None:
        """Put everything back as it was, and remove the files."""
        self.flush()
        with self._lock:
            self._out.close()
            self._err.close()


def _line_buffered(stream: TextIO | None, fd: int) -> TextIO:
    reconfigure = getattr(stream, "reconfigure", None)
    if stream is not None and reconfigure is not None and _fileno(stream) == fd:
        reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
        return stream
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _fileno(stream: TextIO) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):  # not a file
        return -1
