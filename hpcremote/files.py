"""Where things are on disk, and how secrets get there.

::

    profiles, launchers   user_dir()/<kind> → $HPCREMOTE_PROFILE_PATH (profiles only)
                          → /etc/hpcremote/<kind> → shipped
    a cluster's own       user_dir()/clusters/<profile>/<cluster id>/   0700: keys, logs
    local sockets         runtime_dir()                                 0700, a short path
    large arguments       shm_dir(uid)                                  in memory

Login nodes are shared, so whatever holds a key or a socket lies in a folder that only its owner may
enter, and a folder that somebody else made first under our name is refused.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hpcremote.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    if sys.version_info >= (3, 11):
        from importlib.resources.abc import Traversable as Traversable
    else:
        from importlib.abc import Traversable as Traversable

#: The site's own profiles and launchers.
SITE_DIR = Path("/etc/hpcremote")
#: A Unix socket's whole path must fit in 108 bytes on Linux, in 104 elsewhere.
SOCKET_PATH_MAX = 100

# Folders that we make in these two are 0700 and checked.
_SHM = Path("/dev/shm")  # noqa: S108
_TMP = Path("/tmp")  # noqa: S108
#: What is left for a socket's file name within SOCKET_PATH_MAX.
_SOCKET_NAME = 44


def user_dir() -> Path:
    """Return the user's folder: ``$HPCREMOTE_DIR`` or ``~/.hpcremote``."""
    named = os.environ.get("HPCREMOTE_DIR", "").strip()
    return _expanded(named or "~/.hpcremote")


def cluster_dir(profile: str, cluster_id: str) -> Path:
    """Return the folder of one cluster (it need not exist)."""
    for part in (profile, cluster_id):
        if not part or "/" in part or part.startswith("."):
            raise ConfigError(f"{part!r} cannot name a profile or cluster: it has to be a plain file name")
    return user_dir() / "clusters" / profile / cluster_id


# ---------------------------------------------------------------- profiles and launchers


def shipped(name: str) -> Traversable:
    """Return the folder ``launchers`` or ``profiles`` that comes with hpcremote.

    A wheel carries it inside the package; in a checkout it stands beside the package.
    """
    from importlib.resources import files  # here: it costs what `import hpcremote` must not

    inside = files("hpcremote").joinpath("_shipped").joinpath(name)
    return inside if inside.is_dir() else Path(__file__).absolute().parent.parent / name


def search_path(kind: str) -> list[Traversable]:
    """Return the folders to look in for *kind* (``profiles``, ``launchers``), the winning one first."""
    folders: list[Traversable] = [user_dir() / kind]
    if kind == "profiles":
        shared = os.environ.get("HPCREMOTE_PROFILE_PATH", "").split(os.pathsep)
        folders += [_expanded(entry) for entry in shared if entry.strip()]
    return [*folders, SITE_DIR / kind, shipped(kind)]


def find_all(kind: str, name: str) -> list[Traversable]:
    """Return every ``<name>.yaml`` on the search path, the winning one first."""
    return [file for folder in search_path(kind) if (file := folder.joinpath(f"{name}.yaml")).is_file()]


def available(kind: str) -> dict[str, Traversable]:
    """Return name → file of everything on the search path of *kind*."""
    found: dict[str, Traversable] = {}
    for folder in search_path(kind):
        for file in _entries(folder):
            if file.name.endswith(".yaml") and file.is_file():
                found.setdefault(file.name.removesuffix(".yaml"), file)
    return dict(sorted(found.items()))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest of *known*, or nothing when none is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(path)).expanduser().absolute()


def _entries(folder: Traversable) -> list[Traversable]:
    try:
        return list(folder.iterdir())
    except OSError:  # not there, or not ours to read: nothing to find in it
        return []


# ---------------------------------------------------------------- private folders and files


def private_dir(path: Path) -> Path:
    """Return *path* as a folder that only its owner may enter; make it (0700) when it is not there.

    Raises:
        ConfigError: it cannot be made, or what is there is a link, somebody else's, or open to others.
    """
    try:
        _make_private(path)
        found = path.lstat()
    except FileExistsError:
        raise ConfigError(f"{path} is needed as a folder, and is something else: move it away") from None
    except OSError as error:
        raise ConfigError(f"cannot make the folder {path}: {_reason(error)}") from None
    if complaint := _not_private(path, found):
        raise ConfigError(complaint)
    return path


def _make_private(path: Path) -> None:
    """Make a folder and what is missing above it, which ``mkdir(parents=True)`` would make open to others."""
    if not path.parent.exists():
        _make_private(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, data: bytes) -> None:
    """Put *data* into *path* (0600) in one step: a reader sees the old file or the new, never a part.

    Raises:
        ConfigError: no room, no permission, no folder; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {_reason(error)}") from None


def read_private(path: Path) -> bytes:
    """Return what is in *path*, a file that holds secrets.

    Raises:
        FileNotFoundError: it is not there.
        ConfigError: it cannot be read, is somebody else's, or others may read it.
    """
    try:
        # O_NONBLOCK: a FIFO of that name must not hang us.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path} is not a file")
            if not _ours(found):
                raise ConfigError(
                    f"{path} belongs to {_owner(found)}, not to you: its keys cannot be trusted"
                )
            if found.st_mode & 0o077:
                raise ConfigError(
                    f"{path} holds keys, and others may use it (mode {stat.S_IMODE(found.st_mode):04o}): "
                    f"run `chmod 600 {path}`, and restart the cluster (which makes new keys) if they may have"
                )
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {_reason(error)}") from None


def _not_private(path: Path, found: os.stat_result) -> str:
    """Say what is wrong with a folder that has to be private; nothing when nothing is."""
    if not stat.S_ISDIR(found.st_mode):
        return f"{path} is a link or a file, and has to be a folder of yours: move it away"
    if found.st_uid != os.geteuid():
        return f"{path} belongs to {_owner(found)}, not to you: somebody made it first, and has to remove it"
    if (mode := stat.S_IMODE(found.st_mode)) & 0o077:
        return f"{path} has to be private, and others may use it (mode {mode:04o}): run `chmod 700 {path}`"
    return ""


def _ours(found: os.stat_result) -> bool:
    return os.geteuid() == 0 or found.st_uid in (os.geteuid(), 0)


def _owner(found: os.stat_result) -> str:
    import pwd

    try:
        return pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        return f"user {found.st_uid}"


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


# ---------------------------------------------------------------- this machine


def runtime_dir() -> Path:
    """Return a private folder with a path short enough for Unix sockets.

    It is ``/tmp/hpcremote-<uid>``, or ``$XDG_RUNTIME_DIR/hpcremote`` when somebody else has taken that
    name. Not the other way round: the latter is emptied when its user logs out, and clusters live on.

    Raises:
        ConfigError: neither can be had.
    """
    try:
        return private_dir(_TMP / f"hpcremote-{os.geteuid()}")
    except ConfigError:
        fallback = _session_dir()
        if fallback is None:
            raise
        return private_dir(fallback)


def _session_dir() -> Path | None:
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    path = Path(named) / "hpcremote"
    if not named.startswith("/") or len(os.fsencode(path)) + _SOCKET_NAME > SOCKET_PATH_MAX:
        return None
    try:
        found = path.parent.lstat()
    except OSError:
        return None
    return None if _not_private(path.parent, found) else path


def socket_path(name: str) -> Path:
    """Return the path of the Unix socket *name* in :func:`runtime_dir`.

    Raises:
        ConfigError: the path would be longer than the system allows.
    """
    path = runtime_dir() / name
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise ConfigError(f"{path} is too long for a Unix socket (more than {SOCKET_PATH_MAX} bytes)")
    return path


def shm_dir(cluster_uid: str) -> Path | None:
    """Return the shared-memory folder of a cluster, or None where ``/dev/shm`` is no memory we may use.

    It need not exist: its user makes it with :func:`private_dir`.
    """
    if not (_is_tmpfs(_SHM) and os.access(_SHM, os.W_OK | os.X_OK)):
        return None
    return _SHM / f"hpcremote-{os.geteuid()}-{cluster_uid[:12]}"


def _is_tmpfs(path: Path) -> bool:
    mounts = [line.split() for line in _proc("self/mounts").splitlines()]
    kinds = [fields[2] for fields in mounts if len(fields) > 2 and fields[1] == str(path)]
    return bool(kinds) and kinds[-1] == "tmpfs"  # the last mount hides those before


def machine_id() -> str:
    """Return a text that two processes share only if they share Unix sockets, ``/dev/shm`` and process ids.

    Containers on one host differ in the devices behind ``/tmp`` and ``/dev/shm``, or in the process-id space.
    """
    parts = [_proc("sys/kernel/random/boot_id").strip(), os.uname().nodename]
    parts += [_identity(path) for path in (_TMP, _SHM, Path("/proc/self/ns/pid"))]
    return " ".join(parts)


def _identity(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return "-"
    return f"{found.st_dev}:{found.st_ino}"


def process_start(pid: int) -> int | None:
    """Return when *pid* started, in clock ticks since boot; 0 if that is hidden, None if it does not run.

    A process id comes back in use; together with its start it names one process. Ticks since boot do
    not move when somebody sets the clock.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:  # somebody else's
        pass
    # The command's name, in brackets, may itself hold spaces and brackets.
    fields = _proc(f"{pid}/stat").rpartition(")")[2].split()
    if fields and fields[0] in "ZX":  # ended; only its parent has not looked yet
        return None
    return int(fields[19]) if len(fields) > 19 else 0


def _proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text(errors="replace")
    except OSError:  # not Linux, or hidden from us
        return ""
