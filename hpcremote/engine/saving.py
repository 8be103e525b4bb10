"""Save an engine's namespace to a file, and put it back.

::

    names ──pickle──▶ pieces ──▶ .rank-3.hpcremote.PID  ──all engines of the call could──▶  rank-3.hpcremote

All engines of a call save, or none: they agree by MPI before the new files take the place of the old ones.
What pickle cannot take is left out, and named.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from hpcremote._version import __version__
from hpcremote.engine import here
from hpcremote.engine.comm import current
from hpcremote.errors import HPCRemoteError, PayloadError, SaveError
from hpcremote.wire import payload, saved, scope
from hpcremote.wire.pickler import Buffer
from hpcremote.wire.saved import Head, Saved
from hpcremote.wire.targets import compact

Names = str | Iterable[str] | None
_RANK = "{rank}"


def operations() -> dict[str, Callable[[bytes, Sequence[Buffer]], Any]]:
    """Return the operations that clients ask for: save, peek (at a file's head) and load."""
    return {
        "save": lambda digest, pieces: save_namespace(*payload.load(pieces)),
        "peek": lambda digest, pieces: _peek(payload.load(pieces)),
        "load": lambda digest, pieces: load_namespace(*payload.load(pieces)),
    }


def save_namespace(path: str | os.PathLike[str], names: Names = None) -> Saved:
    """Save the namespace of this engine; in a call, on all of its engines.

    Args:
        path: a folder, or a file's name with ``{rank}`` in it, which stands for the engine's id.
        names: what to save; default: every name that was put there.

    Raises:
        SaveError: it cannot be written, here or on another engine of the call; the old files are untouched.
        NameError: one of *names* is not there.
        PayloadError: one of *names* cannot be pickled.
    """
    file = _file(path)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    problem: BaseException | None = None
    done: Saved | None = None
    try:
        try:
            done = _write(file, temporary, names)
        except Exception as error:  # noqa: BLE001 - raised when the others know
            problem = error
        _agree(file, problem)
        assert done is not None  # noqa: S101 - else there was a problem
        try:
            temporary.replace(file)
        except OSError as error:
            raise _unwritten(file, error) from None
    finally:
        temporary.unlink(missing_ok=True)
    return done


def load_namespace(path: str | os.PathLike[str], names: Names = None) -> Saved:
    """Put back what :func:`save_namespace` has saved of this engine.

    What was saved as a file is trusted as code is: unpickling it runs what is in it. A file that others can
    write is refused.

    Args:
        path: as for ``save_namespace``.
        names: what to put back; default: all that is in the file.

    Raises:
        SaveError: the file is missing, damaged, cut short or somebody else's, or does not have these names.
    """
    engine = here.engine("load_namespace()")
    path = _file(path)
    with _opened(path) as file:
        head, length = _head(path, file)
        pieces = [_piece(path, file, at, size) for at, size in saved.places(head, length)]
    wanted = head.names if names is None else _listed(names)
    if lacking := [name for name in wanted if name not in head.names]:
        raise SaveError(f"{path} has no {', '.join(map(repr, lacking))}; it has: {', '.join(head.names)}")
    loading = scope.begin_loading()
    try:
        values = payload.load(pieces)
    except Exception as error:
        raise SaveError(f"what is in {path} cannot be put back: {error!r}") from error
    if carrying := scope.carrying(loading.scopes):
        scope.keep(carrying)
    engine.namespace.push({name: values[name] for name in wanted})
    size = saved.whole_size(head, length)
    return Saved(engine.engine_id, str(path), tuple(wanted), size, {})


# ---------------------------------------------------------------- writing


def _write(file: Path, temporary: Path, names: Names) -> Saved:
    engine = here.engine("save_namespace()")
    space = engine.namespace
    chosen = (
        space.own() if names is None else dict(zip(_listed(names), space.pull(_listed(names)), strict=True))
    )
    pieces, left_out = _pickled(chosen, strict=names is not None)
    kept = [name for name in chosen if name not in left_out]
    sizes = [memoryview(piece).nbytes for piece in pieces]
    python = ".".join(map(str, sys.version_info[:3]))
    targets, stamp = compact(engine.targets), engine.stamp
    head = Head(engine.engine_id, targets, stamp, time.time(), kept, sizes, python, __version__)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb", buffering=0) as out:
            _put(out, saved.lead(head))
            for number, piece in enumerate(pieces, 1):
                _put(out, piece)
                if number < len(pieces):
                    _put(out, saved.padding(sizes[number - 1]))
            os.fsync(out.fileno())
            size = out.tell()
    except OSError as error:
        raise _unwritten(file, error) from None
    return Saved(engine.engine_id, str(file), tuple(kept), size, left_out)


def _put(out: BinaryIO | Any, piece: Buffer) -> None:
    """Write all of it: one system call takes 2 GiB at most, or what there is room for."""
    view = memoryview(piece).cast("B")
    while view.nbytes:
        view = view[out.write(view) :]


def _pickled(values: dict[str, Any], *, strict: bool) -> tuple[list[Buffer], dict[str, str]]:
    """Return the pieces of *values* in one pickle, so that what two of them share stays shared."""
    try:
        return payload.dump(values, what="the namespace"), {}
    except PayloadError:
        if strict:
            raise
    left_out: dict[str, str] = {}
    for name, value in values.items():
        try:
            payload.dump(value, what=name)
        except PayloadError as error:
            left_out[name] = str(error)
    return payload.dump({name: values[name] for name in values if name not in left_out}), left_out


def _agree(file: Path, problem: BaseException | None) -> None:
    """Raise what is wrong here, or that something is wrong on another engine of the call."""
    failed = 0
    with contextlib.suppress(HPCRemoteError):  # no MPI, or engines of several jobs: each for itself
        failed = current.comm().allreduce(int(problem is not None))
    if problem is not None:
        raise problem
    if failed:
        raise SaveError(f"{file} is as it was: {failed} other engines of this call could not save")


def _unwritten(file: Path, error: OSError) -> SaveError:
    return SaveError(f"{file} cannot be written: {_reason(error)}; what was there is as it was")


# ---------------------------------------------------------------- reading


def _peek(path: str) -> tuple[str, float, list[int]]:
    """Return of which save the file is, when that was, and which engines saved together."""
    name = _file(path)
    with _opened(name) as file:
        head, _ = _head(name, file)
    return head.stamp, head.when, head.engines


def _opened(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang us
    except FileNotFoundError:
        beside = sorted(one.name for one in path.parent.glob(path.name.replace(str(_number()), "*")))
        there = f"there are {', '.join(beside[:8])}" if beside else f"there is none like it in {path.parent}"
        raise SaveError(f"there is no file {path}: nothing was saved by this engine; {there}") from None
    except OSError as error:
        raise SaveError(f"{path} cannot be read: {_reason(error)}") from None
    file = open(descriptor, "rb", buffering=0)  # noqa: SIM115 - it is the caller's to close
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        problem = "is not a file"
    elif found.st_uid not in (os.geteuid(), 0):
        problem = "is somebody else's: what is in it would run as you"
    elif found.st_mode & 0o022:
        problem = "can be written by others, and what is in it would run as you: chmod go-w"
    else:
        return file
    file.close()
    raise SaveError(f"{path} {problem}")


def _head(path: Path, file: BinaryIO) -> tuple[Head, int]:
    try:
        length = saved.head_length(file.read(saved.START))
        head = saved.head_of(file.read(length))
    except SaveError as error:
        raise SaveError(f"{path} {error}") from None
    except OSError as error:
        raise SaveError(f"{path} cannot be read: {_reason(error)}") from None
    wanted, size = saved.whole_size(head, length), os.fstat(file.fileno()).st_size
    if size != wanted:
        raise SaveError(f"{path} is damaged: it has {size} bytes, and was written with {wanted}")
    return head, length


def _piece(path: Path, file: BinaryIO, at: int, size: int) -> bytearray:
    """Return a piece as memory of its own, so that arrays are writable."""
    piece = bytearray(size)
    view = memoryview(piece)
    try:
        file.seek(at)
        while view.nbytes:
            got = file.readinto(view)  # type: ignore[attr-defined]
            if not got:
                raise SaveError(f"{path} was cut short while it was read")
            view = view[got:]
    except OSError as error:
        raise SaveError(f"{path} cannot be read: {_reason(error)}") from None
    return piece


# ---------------------------------------------------------------- names


def _file(path: str | os.PathLike[str]) -> Path:
    name = os.path.expanduser(os.fspath(path))
    if _RANK in name:
        return Path(os.path.abspath(name.replace(_RANK, str(_number()))))
    folder = Path(os.path.abspath(name))
    if folder.exists() and not folder.is_dir():
        raise SaveError(f"{folder} is a file: name a folder, or a file's name with {_RANK} in it")
    return folder / f"rank-{_number()}.hpcremote"


def _number() -> int:
    return here.engine("save_namespace()").engine_id


def _listed(names: Names) -> list[str]:
    chosen = [names] if isinstance(names, str) else list(names or ())
    for name in chosen:
        if not isinstance(name, str) or not name.isidentifier():
            raise TypeError(f"what is saved are names in the namespace, not {name!r}")
    return chosen


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
