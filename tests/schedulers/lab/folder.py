"""The folder of a lab: configuration, spools and logs of its machines; gone when its owner is."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: What the folders of labs begin with.
PREFIX = "hpcremote-lab-"


class Folder:
    """A folder for one run. Who holds the lock on its file ``lock`` uses it; the kernel lets go for the dead.

    Making one removes those of dead runs. Several runs at the same time do not meet.

    Attributes:
        path: the folder. All may pass through it: programs of other users have to reach sockets.
    """

    def __init__(self) -> None:
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.path.chmod(0o755)
        self._lock = os.open(self.path / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(self.path / "new", self.path / "lock")  # never there without being locked

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path)
        os.close(self._lock)


def folders() -> list[Path]:
    """Return the folders of all runs, living and dead, the newest last."""
    found = Path(tempfile.gettempdir()).glob(f"{PREFIX}*/lock")
    return [lock.parent for lock in sorted(found, key=lambda lock: lock.stat().st_mtime)]


def living() -> list[Path]:
    """Return the folders of runs that go on, the newest last."""
    dead = set(_dead())
    return [path for path in folders() if path not in dead]


def sweep() -> list[Path]:
    """Remove the folders of dead runs, and return which. Their machines ended with them."""
    removed = []
    for path in _dead():
        shutil.rmtree(path, ignore_errors=True)  # another run may be sweeping too
        removed.append(path)
    return removed


def _dead() -> Iterator[Path]:
    for path in folders():
        try:
            lock = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield path
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
