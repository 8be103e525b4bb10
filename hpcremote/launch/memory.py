"""Shared memory that an MPI library keeps in files, and leaves there when its ranks are killed.

::

    a set is up ──mapped()──▶ names, kept in the cluster's record ──remove()──▶ gone, when it has ended

A set's are named when it has just registered: no code of the user's has mapped anything there yet, and
all are the library's. Later it would be otherwise, so each set is looked at then, alone and once.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from hpcremote.launch.process import Process

_FOLDER = Path("/dev/shm")  # noqa: S108


def mapped(processes: Iterable[Process]) -> tuple[str, ...]:
    """Return the files right in ``/dev/shm`` that *processes* have mapped."""
    return tuple(sorted({path for process in processes for path in _maps(process.pid) if _is_ours(path)}))


def remove(paths: Iterable[str]) -> None:
    """Remove the files among *paths* that are there still."""
    for path in paths:
        if _is_ours(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _maps(pid: int) -> list[str]:
    try:
        lines = Path("/proc", str(pid), "maps").read_text(errors="surrogateescape").splitlines()
    except OSError:  # another user's, or gone
        return []
    return [fields[5] for line in lines if len(fields := line.split(maxsplit=5)) > 5]


def _is_ours(path: str) -> bool:
    if os.path.dirname(path) != str(_FOLDER):
        return False
    try:
        return os.lstat(path).st_uid == os.geteuid()
    except OSError:  # removed while it is mapped, as most are
        return False
