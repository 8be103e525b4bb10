"""Big buffers between processes of one machine: written once to shared memory, mapped where they are read.

A blob is a file in the cluster's private folder on a tmpfs. Its writer writes with ``write(2)``, so a
full tmpfs is an error to handle and not a SIGBUS. A reader maps it privately: it may change what it
got (arrays arrive writable) while every other reader keeps its own view and pages are shared until
somebody writes to them. Who reads a result unlinks it; the controller unlinks the rest.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hpcremote.errors import PayloadError
from hpcremote.ids import is_blob_name, new_uid

#: Each piece begins at a multiple of this, so that arrays are aligned.
ALIGN = 64
#: Totals below this go through the socket: a file, a map and its page faults cost more.
WORTHWHILE = 1 << 20
# Linux writes at most 0x7ffff000 bytes a call.
_CHUNK = 1 << 30
_ZEROS = bytes(ALIGN)
#: Before Python 3.13 a map keeps a descriptor: while there are so many, further blobs are copied instead.
MANY = 256
_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG)


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def write_blob(folder: str, pieces: Sequence[Any]) -> str:
    """Write *pieces* to a new blob in *folder* and return its name, or "" if there is no room."""
    name = new_uid()
    path = Path(folder) / name
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return ""
    try:
        for piece in pieces:
            view = memoryview(piece).cast("B")
            _write_all(fd, view)
            if pad := _aligned(len(view)) - len(view):
                _write_all(fd, memoryview(_ZEROS)[:pad])
    except BaseException as error:  # KeyboardInterrupt too: the memory would be lost until the cluster ends
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            return ""
        raise
    finally:
        os.close(fd)
    return name


def _write_all(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view[:_CHUNK]) :]


def read_blob(folder: str, name: str, sizes: Iterable[int], *, unlink: bool) -> list[memoryview]:
    """Map a blob and return its pieces as writable buffers.

    Raises:
        PayloadError: there is no such blob, it is shorter than *sizes* say, or there is no memory for it.
    """
    if not is_blob_name(name):
        raise PayloadError(f"{name!r} is not the name of a shared-memory blob")
    path = Path(folder) / name
    sizes = list(sizes)
    need = sum(_aligned(size) for size in sizes)
    if not need:
        raise PayloadError(f"shared-memory blob {name} is said to be empty")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise PayloadError(f"shared-memory blob {path} cannot be read: {error.strerror}") from None
    try:
        if os.fstat(fd).st_size < need:
            raise PayloadError(f"shared-memory blob {path} is shorter than announced")
        # Not MAP_POPULATE: for a mapping that may be written it would copy every page now.
        area = _map(fd, need)
    except (OSError, MemoryError):
        raise PayloadError(f"there is no memory for its {need:,} bytes") from None
    finally:
        os.close(fd)
        if unlink:
            remove_blob(folder, name)
    return list(_cut(memoryview(area), sizes))


def _map(fd: int, size: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, trackfd=False)
    if len(_maps) < MANY:
        area = mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE)
        _maps.add(area)
        return area
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    rest = memoryview(area)
    while rest:
        rest = rest[os.readv(fd, [rest[:_CHUNK]]) :]
    return area


def _cut(whole: memoryview, sizes: list[int]) -> Iterable[memoryview]:
    at = 0
    for size in sizes:
        yield whole[at : at + size]
        at += _aligned(size)


def remove_blob(folder: str, name: str) -> None:
    """Unlink a blob; one that is gone already is fine."""
    if folder and is_blob_name(name):
        with contextlib.suppress(FileNotFoundError):
            (Path(folder) / name).unlink()
