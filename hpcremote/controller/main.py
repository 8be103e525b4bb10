"""The controller process, from its keys to its end."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import resource
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hpcremote import files
from hpcremote._version import __version__
from hpcremote.connection import Connection
from hpcremote.controller.machine import Controller
from hpcremote.controller.server import Server
from hpcremote.ids import new_uid
from hpcremote.net.addresses import bind_address, candidates, endpoint
from hpcremote.net.hub import Hub
from hpcremote.net.keys import Admission, new_keypair
from hpcremote.wire.messages import PROTOCOL

if TYPE_CHECKING:
    from hpcremote.profile import Profile

_log = logging.getLogger("hpcremote.controller")


def run(profile: Profile, cluster_id: str) -> int:
    """Run a controller until it is told to end; return the exit status.

    The connection files appear when it listens, and go when it ends.

    Raises:
        ConfigError: the cluster's folder, the interface or the port cannot be used.
    """
    uid = new_uid()
    home = files.private_dir(files.cluster_dir(profile.name, cluster_id))
    shm = _shm_folder(uid) if profile.shm else ""
    ipc_path = files.socket_path(f"{uid[:16]}.sock") if profile.ipc else None
    words = shm or str(files.private_dir(files.runtime_dir() / uid[:16]))
    written: list[Path] = []
    server_keys, client_keys, engine_keys = new_keypair(), new_keypair(), new_keypair()
    hub = Hub(server_keys, Admission(client_keys.public, engine_keys.public), f"ipc://{ipc_path}" if ipc_path else "")
    try:
        _raise_file_limit()
        port = hub.bind(bind_address(profile.interface), profile.port)
        for role, keys in (("client", client_keys), ("engine", engine_keys)):
            connection = Connection(
                role=role,
                cluster_id=cluster_id,
                cluster_uid=uid,
                profile=profile.name,
                version=__version__,
                protocol=PROTOCOL,
                host=socket.gethostname(),
                pid=os.getpid(),
                started=time.time(),
                machine=files.machine_id(),
                ipc=f"ipc://{ipc_path}" if ipc_path else "",
                addresses=tuple(endpoint(host, port) for host in candidates(profile.interface)),
                server_key=server_keys.public,
                public_key=keys.public,
                secret_key=keys.secret,
                shm=words,
                controller_timeout=profile.controller_timeout,
            )
            path = home / f"{role}.json"
            connection.write(path)
            written.append(path)
        machine = Controller(
            cluster_id, __version__, socket.gethostname(), os.getpid(), shm=shm, grace=profile.stop_timeout
        )
        # Nearly nothing here makes cycles, and looking for them takes a tenth of the time of a call.
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        _log.info("cluster %s listens on port %d%s", cluster_id, port, " and locally" if ipc_path else "")
        Server(machine, hub, shm=shm, words=words).run()
    finally:
        _forget(written, uid)
        hub.close(linger=1.0)
        for folder in {shm, words} - {""}:
            shutil.rmtree(folder, ignore_errors=True)
        if ipc_path:
            ipc_path.unlink(missing_ok=True)
    return 0


def _shm_folder(uid: str) -> str:
    folder = files.shm_dir(uid)
    return str(files.private_dir(folder)) if folder else ""


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

