"""The folder of keys and records: on which file system, private, and honest about locks?"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpcremote import files
from hpcremote.doctor.finding import Finding, ok, problem, warning
from hpcremote.errors import ConfigError

_GROUP = "files"
#: File systems that several machines see, and what is known of each.
SHARED = (
    "nfs",
    "nfs4",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.ceph",
    "cifs",
    "smb3",
    "9p",
    "afs",
    "panfs",
    "wekafs",
)
MEMORY = ("tmpfs", "ramfs")
_CACHING = ("nfs", "nfs4", "cifs", "smb3")


class Mount(NamedTuple):
    """A line of ``/proc/self/mounts``."""

    source: str
    point: str
    kind: str
    options: str


class Seen(NamedTuple):
    """What was found. ``*_trouble``: in words, or empty."""

    folder: str
    mount: Mount | None
    trouble: str = ""
    lock_trouble: str = ""
    runtime_trouble: str = ""
    shm: bool = True
    free: int = 1 << 40


def mounts(text: str) -> list[Mount]:
    """Return the lines of ``/proc/self/mounts``."""
    rows = [line.split() for line in text.splitlines()]
    return [Mount(r[0], r[1].replace("\\040", " "), r[2], r[3]) for r in rows if len(r) > 3]


def mount_of(path: str, found: Sequence[Mount]) -> Mount | None:
    """Return the mount that *path* is on: the deepest, and of those the last one."""
    best: Mount | None = None
    for one in found:
        inside = path == one.point or path.startswith(one.point.rstrip("/") + "/")
        if inside and (best is None or len(one.point) >= len(best.point)):
            best = one
    return best


def probe() -> Seen:
    """Look at the folder of the user's clusters, and lock a file there that is removed again."""
    folder = files.user_dir() / "clusters"  # what is beside it, profiles for example, may be open to others
    trouble = lock = runtime = ""
    free = 1 << 40
    try:
        files.private_dir(folder)
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        lock = _try_lock(folder)
    except ConfigError as error:
        trouble = str(error)
    except OSError as error:
        trouble = f"{folder}: {error.strerror}"
    try:
        files.runtime_dir()
    except ConfigError as error:
        runtime = str(error)
    known = mounts(Path("/proc/self/mounts").read_text(errors="replace"))
    mount = mount_of(os.path.realpath(folder), known)
    return Seen(str(folder), mount, trouble, lock, runtime, files.shm_dir("0" * 32) is not None, free)


def _try_lock(folder: Path) -> str:
    """Have two descriptors of one file ask for its lock: exactly one may have it."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as file:
        if (mode := stat.S_IMODE(os.fstat(file.fileno()).st_mode)) != 0o600:
            return f"a file made with mode 0600 has mode {mode:04o}: permissions are not kept"
        other = os.open(file.name, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                return ""  # as it should be: the second one was refused
            return f"flock does not work: {error.strerror}"
        finally:
            os.close(other)
    return "two holders have one lock at the same time (mounted with localflock or nolock?)"


def judge(seen: Seen) -> list[Finding]:
    """Say what it means."""
    if seen.trouble:
        return [problem(_GROUP, seen.trouble, "mend it, or set HPCREMOTE_DIR to a folder of yours")]
    found = [*_file_system(seen.folder, seen.mount)]
    if seen.lock_trouble:
        text = f"{seen.folder}: {seen.lock_trouble}"
        found.append(problem(_GROUP, text, "set HPCREMOTE_DIR to a folder on a file system with locks"))
    else:
        found.append(ok(_GROUP, "locks and permissions work there, as seen from this machine"))
    if seen.free < 50_000_000:
        text = f"{seen.free // 1_000_000} MB are free there"
        found.append(problem(_GROUP, text, "make room, or set HPCREMOTE_DIR to another folder"))
    if seen.runtime_trouble:
        found.append(problem(_GROUP, seen.runtime_trouble, "local sockets need it: remove what is there"))
    if not seen.shm:
        text = "there is no shared memory that can be used: large arrays go by sockets"
        found.append(warning(_GROUP, text, "mount a tmpfs on dev/shm (containers: --shm-size)"))
    return found


def _file_system(folder: str, mount: Mount | None) -> list[Finding]:
    if mount is None:
        return [
            warning(_GROUP, f"{folder}: nobody knows on which file system", "none, if other nodes see it")
        ]
    where = f"{folder} is on {mount.kind} ({mount.point})"
    if mount.kind in MEMORY:
        text = f"{where}, in this machine's memory: no other node sees it, and a reboot empties it"
        return [warning(_GROUP, text, "set HPCREMOTE_DIR to a shared folder if engines run on other nodes")]
    if mount.kind not in SHARED:
        text = f"{where}, which other nodes may not see"
        return [warning(_GROUP, text, "fine for one machine; else set HPCREMOTE_DIR to a shared folder")]
    if weakness := _weakness(mount.kind, set(mount.options.split(","))):
        return [warning(_GROUP, f"{where}, shared; {weakness[0]}", weakness[1])]
    return [ok(_GROUP, f"{where}, shared")]


def _weakness(kind: str, options: set[str]) -> tuple[str, str] | None:
    """Return what a shared file system does not keep to, and what to do about it."""
    if "localflock" in options or {"nolock", "local_lock=all", "local_lock=flock"} & options:
        return "locks hold on one node only", "start and stop a cluster from one login node, or ask for locks"
    if kind == "lustre" and "flock" not in options:
        return "it is mounted without locks", "ask for the mount option flock"
    if kind in _CACHING and not {"noac", "actimeo=0"} & options:
        remedy = "none needed: engines wait for the connection file, up to start_timeout"
        return "other nodes may see new files some seconds late (attribute caching)", remedy
    return None
