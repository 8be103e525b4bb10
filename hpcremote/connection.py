"""Connection files: how clients and engines find a controller and prove that they belong to it.

::

    controller ──writes──▶ user_dir()/clusters/<profile>/<cluster id>/client.json   keys of the role "client"
                                                                     /engine.json   keys of the role "engine"
    Client, hpcremote engine ──find() / read()──▶ Connection

A file is JSON, 0600 in a 0700 folder, and describes itself; copied to another machine it works there,
over TCP. It is *stale* when its controller has ended, which can be seen on the controller's machine only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcremote import files
from hpcremote.errors import ClusterNotFound, ConfigError, ConnectionFileError, ProfileError
from hpcremote.ids import UNNAMED
from hpcremote.wire.messages import PROTOCOL

ROLES = ("client", "engine")
_KEY_LENGTH = 40  # a CURVE key as Z85 text


@dataclasses.dataclass(frozen=True)
class Connection:
    """How one role reaches one controller.

    Attributes:
        role: ``client`` or ``engine``.
        cluster_id: the cluster's name within its profile.
        cluster_uid: random, never used again.
        profile: name of the profile.
        version: hpcremote's version on the controller's side.
        protocol: the version of the wire format.
        host: the controller's host name, for people.
        pid: the controller's process id.
        started: when it started, in seconds since the epoch.
        machine: ``files.machine_id()`` of the controller.
        ipc: its local endpoint (``ipc://...``), or nothing.
        addresses: every ``tcp://address:port`` to try, the best first.
        server_key: the controller's public CURVE key.
        public_key: the role's public key.
        secret_key: the role's secret key; it is in no repr.
        shm: the cluster's shared-memory folder on the controller's machine, or nothing.
        controller_timeout: seconds that engines live on without their controller.
        output_limit: bytes of what a call prints on one engine that go into its result.
        comm_world: whether MPI.COMM_WORLD inside engines is a duplicate in which waiting can be ended.
        relay: by whom ranks are connected: ``auto``, ``always`` or ``never`` by their node's agent.
        tunnel: the folder of the Unix sockets of an ssh tunnel by which this goes, or nothing.
        ticks: ``files.process_start(pid)``, filled in by itself in the controller.
    """

    role: str
    cluster_id: str
    cluster_uid: str
    profile: str
    version: str
    protocol: int
    host: str
    pid: int
    started: float
    machine: str
    ipc: str
    addresses: tuple[str, ...]
    server_key: str
    public_key: str
    secret_key: str = dataclasses.field(repr=False)
    shm: str = ""
    controller_timeout: float = 30.0
    output_limit: int = 10_000_000
    comm_world: bool = True
    relay: str = "auto"
    tunnel: str = ""
    ticks: int = dataclasses.field(default_factory=lambda: files.process_start(os.getpid()) or 0)

    @property
    def is_local(self) -> bool:
        """Whether the controller runs on this machine, so that ``ipc`` and ``shm`` can be used."""
        return self.machine == files.machine_id()

    @property
    def relayed(self) -> bool:
        """Whether engines of this machine are connected by their node's agent."""
        return self.relay == "always" or (self.relay == "auto" and not self.is_local)

    @property
    def is_stale(self) -> bool:
        """Whether the controller or the tunnel to it is known to have ended; of other machines who knows."""
        if self.tunnel:
            return not tunnel_is_held(self.tunnel)
        if not self.is_local:
            return False
        ticks = files.process_start(self.pid)
        return ticks is None or (self.ticks != 0 and ticks not in (0, self.ticks))

    def for_role(self, role: str, public_key: str, secret_key: str) -> Connection:
        """Return the same with the keys of another role."""
        return dataclasses.replace(self, role=role, public_key=public_key, secret_key=secret_key)

    def but(self, **changes: Any) -> Connection:
        """Return the same with *changes*."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Return the file's text. It has the secret key in it."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def write(self, path: Path | None = None) -> Path:
        """Write the file (0600, atomically), by default to its own place; return where.

        Raises:
            ConfigError: the folder is not private, or there is no room or permission.
        """
        if path is None:
            path = files.private_dir(files.cluster_dir(self.profile, self.cluster_id)) / f"{self.role}.json"
        files.write_private(path, self.to_json().encode())
        return path


def from_dict(data: Mapping[str, Any], role: str = "client", where: str = "connection info") -> Connection:
    """Return the connection that *data*, the content of a connection file, describes.

    Raises:
        ConnectionFileError: it is of the other role or of another protocol, or a field is wrong: says which.
    """
    if not isinstance(data, Mapping):
        raise ConnectionFileError(f"{where}: has to be a JSON object, not {type(data).__name__}")
    _check_protocol(data, where)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Connection):
        if field.name not in data:
            raise ConnectionFileError(f"{where}: the field {field.name!r} is missing")
        values[field.name] = _value(where, field, data[field.name])
    if values["role"] != role:
        raise ConnectionFileError(
            f"{where}: has keys for the role {values['role']!r}, and {role!r} is needed: "
            f"use {role}.json of the same cluster"
        )
    return Connection(**values)


def read(path: str | os.PathLike[str], role: str = "client") -> Connection:
    """Return the connection in the file *path*.

    Raises:
        ConnectionFileError: it is missing, unreadable, readable by others, truncated, of the other role,
            of another protocol, or stale.
    """
    connection = _load(Path(path).expanduser(), role)
    if connection.is_stale and connection.tunnel:
        raise ConnectionFileError(
            f"{path} is stale: the `hpcremote connect` that made it has ended; run it again"
        )
    if connection.is_stale:
        raise ConnectionFileError(
            f"{path} is stale: the controller (pid {connection.pid} on {connection.host}) has ended; "
            f"start it again or run `hpcremote clean`"
        )
    return connection


def find(profile: str | None = None, cluster_id: str | None = None, role: str = "client") -> Connection:
    """Return the connection of a running cluster.

    Args:
        profile: default ``$HPCREMOTE_PROFILE``, else ``default``, else whichever profile has the only
            running cluster.
        cluster_id: default ``$HPCREMOTE_CLUSTER_ID``, else ``default``, else the only running cluster of
            the profile.
        role: ``client`` or ``engine``.

    Raises:
        ClusterNotFound: none runs, or several do and it is not said which.
        ProfileError: there is no such profile.
        ConnectionFileError: the file of the cluster that was asked for is stale or wrong.
    """
    named = profile or os.environ.get("HPCREMOTE_PROFILE") or None
    cluster_id = cluster_id or os.environ.get("HPCREMOTE_CLUSTER_ID") or None
    named = Path(named).stem if named and "/" in named else named
    wanted = named or "default"
    if cluster_id and (path := files.cluster_dir(wanted, cluster_id) / f"{role}.json").exists():
        return read(path, role)
    every = running(role)
    if (found := choose(every, named, cluster_id)) is not None:
        return found
    raise _nothing(wanted, cluster_id, every, role)


def choose(every: Sequence[Connection], named: str | None, cluster_id: str | None) -> Connection | None:
    """Return the one of *every* that is meant, or None if none is.

    Raises:
        ClusterNotFound: several may be meant.
    """
    here = [found for found in every if found.profile == (named or "default")]
    # A profile that was not named is a preference, not a demand.
    pool = here if named or (here and not cluster_id) else every
    pool = [found for found in pool if cluster_id in (None, found.cluster_id)]
    if pool and all(found in here for found in pool):  # what has no name is had without one
        pool = [found for found in pool if found.cluster_id == UNNAMED] or pool
    if len(pool) > 1:
        raise ClusterNotFound(_several(pool))
    return pool[0] if pool else None


def running(role: str = "client", profile: str | None = None) -> list[Connection]:
    """Return the clusters of this user that run, as far as can be known; files that are wrong are skipped."""
    found: list[Connection] = []
    for path in cluster_files(role, profile):
        with contextlib.suppress(ConfigError):  # stale or broken: find() says so when nothing else is left
            found.append(read(path, role))
    return found


def cluster_files(role: str = "client", profile: str | None = None) -> list[Path]:
    """Return the connection files of all clusters of this user, or of one profile, running or not."""
    return sorted((files.user_dir() / "clusters").glob(f"{profile or '*'}/*/{role}.json"))


def tunnel_is_held(tunnel: str) -> bool:
    """Say whether the process lives that a tunnel's folder is named after (see ``net.tunnel``)."""
    pid, _, rest = os.path.basename(tunnel).partition(".")[2].partition(".")
    started = files.process_start(int(pid)) if pid.isdigit() else None
    return started is not None and rest.startswith(f"{started}.") and os.path.isdir(tunnel)


# ---------------------------------------------------------------- reading


def _load(path: Path, role: str) -> Connection:
    try:
        text = files.read_private(path).decode()
        return from_dict(json.loads(text), role, str(path))
    except FileNotFoundError:
        raise ConnectionFileError(f"{path} does not exist; `hpcremote list` shows what is running") from None
    except json.JSONDecodeError as error:
        raise ConnectionFileError(
            f"{path}: not a whole JSON file ({error.msg} at line {error.lineno}, byte {error.pos}); "
            f"copy it again or restart the cluster"
        ) from None
    except UnicodeDecodeError as error:
        raise ConnectionFileError(f"{path}: not a text file (byte {error.start})") from None
    except ConnectionFileError:
        raise
    except ConfigError as error:
        raise ConnectionFileError(str(error)) from None


def _check_protocol(data: Mapping[str, Any], where: str) -> None:
    """First of all: another protocol may have other fields."""
    theirs = data.get("protocol")
    if isinstance(theirs, int) and theirs != PROTOCOL:
        from hpcremote._version import __version__

        raise ConnectionFileError(
            f"{where}: the cluster runs hpcremote {data.get('version', '?')} (protocol {theirs}), this is "
            f"hpcremote {__version__} (protocol {PROTOCOL}): install the same version on both sides"
        )


def _value(where: str, field: dataclasses.Field[Any], value: object) -> Any:
    """Return *value* if it is what *field* has to hold."""
    kind, right = "text", isinstance(value, str)
    if field.type == "int":
        kind, right = "an integer", type(value) is int
    elif field.type == "bool":
        kind, right = "true or false", type(value) is bool
    elif field.type == "float":
        kind, right = "a number", type(value) in (int, float)
    elif field.name == "addresses":
        kind = "a list of tcp://address:port"
        right = isinstance(value, (list, tuple)) and all(_is_address(entry) for entry in value)
        value = tuple(value) if isinstance(value, (list, tuple)) else value
    elif field.name.endswith("_key"):
        kind, right = f"a key of {_KEY_LENGTH} characters", right and len(str(value)) == _KEY_LENGTH
    if not right:
        shown = "" if field.name == "secret_key" else f", not {value!r:.60}"
        raise ConnectionFileError(f"{where}: the field {field.name!r} has to be {kind}{shown}")
    return value


def _is_address(entry: object) -> bool:
    if not isinstance(entry, str):
        return False
    by_tunnel = entry.startswith("tunnel:///")  # what `hpcremote connect` writes
    return by_tunnel or (entry.startswith("tcp://") and entry.rpartition(":")[2].isdigit())


# ---------------------------------------------------------------- nothing found


def _several(pool: Sequence[Connection]) -> str:
    same = len({found.profile for found in pool}) == 1
    names = [repr(found.cluster_id) + ("" if same else f" of profile {found.profile!r}") for found in pool]
    which = f"cluster_id={pool[0].cluster_id!r}" if same else f"profile={pool[0].profile!r}"
    of_profile = f" of profile {pool[0].profile!r}" if same else ""
    return f"{len(pool)} clusters{of_profile} are running: {', '.join(names)}; say which, as in {which}"


def _nothing(
    profile: str, cluster_id: str | None, every: list[Connection], role: str
) -> ProfileError | ClusterNotFound:
    """Return the error for "no such cluster", with what may have been meant and what to do."""
    broken = _complaints(profile, cluster_id, role)
    profiles = files.available("profiles")
    folder = files.user_dir() / "clusters" / profile
    if profile not in profiles and not folder.exists():
        near = files.did_you_mean(profile, profiles) or f"; there are {', '.join(profiles)}"
        return ProfileError(f"there is no profile {profile!r}{near}")
    what = f"cluster {cluster_id!r}" if cluster_id else "cluster"
    text = f"no {what} of profile {profile!r} is running (looked in {folder})"
    if broken:
        text += f"; {broken}"
    here = [found.cluster_id for found in every if found.profile == profile]
    others = sorted({found.profile for found in every} - {profile})
    if here:
        text += f"; running there: {', '.join(here)}"
    elif others:
        listed = " and ".join(f"{name!r}" for name in others)
        those = f"profile {listed} has" if len(others) == 1 else f"profiles {listed} have"
        text += f"; {those} one: Client(profile={others[0]!r})"
    chosen = f" --cluster-id {cluster_id}" if cluster_id else ""
    option = "" if profile == "default" else f" --profile {profile}"
    begun = [path.parent.name for path in folder.glob(f"{cluster_id or '*'}/cluster.json")]
    if begun and not (here or broken):
        return ClusterNotFound(
            f"{text}; {begun[0]!r} is being started, waits in a queue, or has ended with its job: "
            f"see `hpcremote status{option}{chosen}`"
        )
    return ClusterNotFound(f"{text}; start one with `hpcremote start{option}{chosen}`")


def _complaints(profile: str, cluster_id: str | None, role: str) -> str:
    """Say what is wrong with the connection files that are there; the first of them is enough."""
    for path in cluster_files(role, profile):
        if cluster_id in (None, path.parent.name):
            try:
                read(path, role)
            except ConfigError as error:
                return str(error)
    return ""
