"""The controller process, from its keys to its end."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import os
import resource
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hpcremote import files
from hpcremote._version import __version__
from hpcremote.connection import Connection
from hpcremote.controller.machine import Controller
from hpcremote.controller.server import Server
from hpcremote.ids import new_uid
from hpcremote.net.addresses import bind_address, candidates, endpoint
from hpcremote.net.hub import Hub
from hpcremote.net.keys import Admission, new_keypair
from hpcremote.wire import walltime
from hpcremote.wire.messages import PROTOCOL

if TYPE_CHECKING:
    from hpcremote.controller.inquire import Inquirer
    from hpcremote.controller.relaunch import Relauncher
    from hpcremote.profile import Profile

_log = logging.getLogger("hpcremote.controller")


class Places(NamedTuple):
    """Where a cluster's things are. ``shm`` and ``socket`` are "" where they are not used.

    ``words`` is the folder in which local engines leave their output and their last words.
    """

    uid: str
    home: Path
    shm: str
    words: str
    socket: str


def run(
    profile: Profile,
    cluster_id: str,
    relauncher: Relauncher | None = None,
    inquirer: Inquirer | None = None,
) -> int:
    """Run a controller until it is told to end; return the exit status.

    The connection files appear when it listens, and go when it ends. *relauncher* can start an engine set
    again, *inquirer* can ask a batch system what became of a job.

    Raises:
        ConfigError: the cluster's folder, the interface or the port cannot be used.
    """
    _raise_file_limit()
    places = _make_places(profile, cluster_id)
    server, client, engine = new_keypair(), new_keypair(), new_keypair()
    local = f"ipc://{places.socket}" if places.socket else ""
    hub = Hub(server, Admission(client.public, engine.public), local)
    written: list[Path] = []
    try:
        port = hub.bind(bind_address(profile.interface), profile.port)
        for role, keys in (("client", client), ("engine", engine)):
            connection = _connection(profile, cluster_id, places, port, server.public)
            written.append(places.home / f"{role}.json")
            connection.for_role(role, keys.public, keys.secret).write(written[-1])
        host, pid = socket.gethostname(), os.getpid()
        machine = Controller(
            cluster_id,
            __version__,
            host,
            pid,
            shm=places.shm,
            grace=profile.stop_timeout,
            collective_grace=profile.collective_grace,
            watchdog=profile.watchdog,
            walltime_warning=profile.walltime_warning,
            save_on_walltime=profile.save_on_walltime,
            limit=_limit(profile),
        )
        # Nearly nothing here makes cycles, and looking for them takes a tenth of the time of a call.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        _log.info("cluster %s listens on port %d%s", cluster_id, port, " and locally" if local else "")
        Server(
            machine,
            hub,
            shm=places.shm,
            words=places.words,
            relauncher=relauncher,
            inquirer=inquirer,
            in_job=profile.controller != "here",
        ).run()
    finally:
        _forget(written, places.uid)
        hub.close(linger=1.0)
        _clear(places)
    return 0


def _limit(profile: Profile) -> float:
    """Return when our own job ends, by ``time.monotonic()``; of one with engines in it, they know."""
    left = walltime.known(os.environ, time.time()) if profile.controller == "own-job" else None
    return math.inf if left is None else time.monotonic() + left


def _make_places(profile: Profile, cluster_id: str) -> Places:
    uid = new_uid()
    home = files.private_dir(files.cluster_dir(profile.name, cluster_id))
    shm = files.shm_dir(uid) if profile.shm else None
    words = files.private_dir(shm or files.runtime_dir() / uid[:16])
    path = str(files.socket_path(f"{uid[:16]}.sock")) if profile.ipc else ""
    return Places(uid, home, str(shm or ""), str(words), path)


def _connection(profile: Profile, cluster_id: str, places: Places, port: int, server_key: str) -> Connection:
    """Return what clients and engines have to know, but for their keys."""
    return Connection(
        role="client",
        cluster_id=cluster_id,
        cluster_uid=places.uid,
        profile=profile.name,
        version=__version__,
        protocol=PROTOCOL,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=time.time(),
        machine=files.machine_id(),
        ipc=f"ipc://{places.socket}" if places.socket else "",
        addresses=tuple(endpoint(host, port) for host in candidates(profile.interface)),
        server_key=server_key,
        public_key="",
        secret_key="",
        shm=places.words,
        controller_timeout=profile.controller_timeout,
        output_limit=profile.output_limit,
        comm_world=profile.comm_world,
        relay=profile.relay,
    )


def _clear(places: Places) -> None:
    node = str(files.runtime_dir() / places.uid[:16])  # what ranks of this machine and their agent left
    for folder in {places.shm, places.words, node} - {""}:
        shutil.rmtree(folder, ignore_errors=True)
    if places.socket:
        Path(places.socket).unlink(missing_ok=True)


def _forget(written: list[Path], uid: str) -> None:
    """Remove our connection files, unless another controller has put its own there."""
    for path in written:
        with contextlib.suppress(OSError):
            if uid.encode() in path.read_bytes():
                path.unlink()


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
