"""What calls need of a program that is not the engine's own, and give back when they are done.

::

    the program ──▶ fds 1 and 2, sys.stdout, sys.stderr ──▶ BorrowedOutput   pause(), resume()
                ──▶ its variables ──▶ BorrowedNamespace                      enter(), leave()
"""

from __future__ import annotations

import builtins
import ctypes
import os
import sys
from typing import Any

from hpcremote.engine.namespace import Namespace
from hpcremote.engine.output import Capture
from hpcremote.wire.scope import engine_namespace, set_namespace

_MISSING: Any = object()
_FULLY_BUFFERED, _LINE_BUFFERED, _UNBUFFERED = 0, 1, 2  # _IOFBF, _IOLBF, _IONBF
_BUFFER = 8192


class _Stream:
    """``sys.stdout`` or ``sys.stderr`` as the program had it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._object = getattr(sys, name)
        options = ("encoding", "errors", "line_buffering")
        has = hasattr(self._object, "reconfigure")
        self._options = {option: getattr(self._object, option) for option in options} if has else {}

    def put_back(self) -> None:
        if self._options and not self._object.closed:
            self._object.reconfigure(**self._options)
        setattr(sys, self._name, self._object)


class BorrowedOutput(Capture):
    """Takes over file descriptors 1 and 2 between :meth:`resume` and :meth:`pause`; begins paused.

    Its files have no names, so that nothing is left of them whatever becomes of the program.
    """

    def __init__(self, directory: str | os.PathLike[str], uid: str) -> None:
        self._streams = [_Stream("stdout"), _Stream("stderr")]
        super().__init__(directory, f"{uid}-borrowed")
        os.unlink(self.out_path)
        os.unlink(self.err_path)
        self._paused = False
        self.pause()

    def resume(self) -> None:
        """From here on, what is written belongs to calls."""
        if not self._paused:
            return
        self._paused = False
        self.flush()
        self._streams = [_Stream("stdout"), _Stream("stderr")]
        for stream in (self._out, self._err):
            os.dup2(stream.fd, stream.original, inheritable=False)  # wherever the program has it go by now
            os.dup2(stream.file, stream.fd)
        self._line_buffer()

    def pause(self) -> None:
        """From here on, what is written goes where it went before."""
        if self._paused:
            return
        self.flush()
        self._paused = True
        for stream in (self._out, self._err):
            os.dup2(stream.original, stream.fd)
        for kept in self._streams:
            kept.put_back()
        self._buffer("stdout", _LINE_BUFFERED if os.isatty(1) else _FULLY_BUFFERED)
        self._buffer("stderr", _UNBUFFERED)

    def close(self) -> None:
        """Give everything back."""
        self.pause()
        with self._lock:
            for stream in (self._out, self._err):
                os.close(stream.original)
                os.close(stream.file)

    def _buffer(self, name: str, mode: int) -> None:
        stream = ctypes.c_void_p.in_dll(self._libc, name)
        self._libc.setvbuf(stream, None, mode, ctypes.c_size_t(_BUFFER if mode == _FULLY_BUFFERED else 0))


class BorrowedNamespace(Namespace):
    """Variables of the program: the globals of one of its modules, or any dict."""

    def __init__(self, names: dict[str, Any]) -> None:
        super().__init__()
        self.dict = names
        self._lent: dict[str, Any] = {"__builtins__": builtins, "__name__": "__main__"}
        self._added: list[str] = []
        self._before: frozenset[str] = frozenset()
        self._theirs: set[str] = set()  # names that calls have made
        self._former: dict[str, Any] | None = None

    def enter(self) -> None:
        """A call is about to be done."""
        self._former = engine_namespace()
        set_namespace(self.dict)
        self._added = [name for name in self._lent if name not in self.dict]
        self.dict.update({name: self._lent[name] for name in self._added})
        self._before = frozenset(self.dict)

    def leave(self) -> None:
        """The program goes on."""
        self._theirs |= self.dict.keys() - self._before
        for name in self._added:
            self._lent[name] = self.dict.pop(name, self._lent[name])
        self._added = []
        set_namespace(self._former)

    def clear(self) -> None:
        """Forget what calls have put there; the program's own names stay."""
        for name in self._theirs | (self.dict.keys() - self._before):
            self.dict.pop(name, None)
        self._theirs.clear()
