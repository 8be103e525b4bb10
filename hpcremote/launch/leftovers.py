"""What nobody owns any more: sockets and shared memory of dead controllers, tunnels of dead clients."""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path

from hpcremote import files
from hpcremote.connection import tunnel_is_held

_UID = re.compile(r"[0-9a-f]{16}")


def orphans(runtime: Path) -> list[Path]:
    """Return what no living controller listens behind, and folders of tunnels that no living process holds.

    A controller is named by the first 16 digits of its uid: ``<uid>.sock`` and the folder ``<uid>``
    beside it; its folder in shared memory carries 12 of them.
    """
    names = {path.name.removesuffix(".sock") for path in runtime.iterdir()}
    dead = [uid for uid in sorted(names) if _UID.fullmatch(uid) and _is_dead(runtime / f"{uid}.sock")]
    found = []
    for uid in dead:
        found += [runtime / f"{uid}.sock", runtime / uid]
        if (shm := files.shm_dir(uid)) is not None:
            found.append(shm)
    tunnels = sorted(path for path in runtime.glob("tun.*") if not tunnel_is_held(str(path)))
    return [path for path in [*found, *tunnels] if path.exists()]


def _is_dead(path: Path) -> bool:
    """Nobody accepts connections there. Without a socket file (``ipc: false``) that cannot be known."""
    if not path.exists():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def remove(path: Path) -> None:
    """Remove a file or folder; that it is gone already is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
