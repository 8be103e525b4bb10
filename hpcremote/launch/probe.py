"""Inside a job, before its ranks start: can this node reach the controller?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from hpcremote.connection import Connection, read
from hpcremote.errors import ConnectionFileError, NotConnected
from hpcremote.launch.batch.triage import PROBE
from hpcremote.net.connect import connect

#: How long the controller may take to answer when its file is there, in seconds.
_PATIENCE = 10.0
_LOOK_AGAIN = 0.2


def probe(path: str, wait: float, say: Callable[[str], object]) -> bool:
    """Try every address of the controller in connection file *path*; *say* what is wrong, line by line.

    Args:
        path: the engines' connection file.
        wait: seconds to wait for it.
        say: takes each line.
    """
    host = os.uname().nodename
    try:
        connection = _await(path, wait)
    except ConnectionFileError as error:
        lines = [
            f"on {host}: {error}",
            f"If the controller runs, then {host} does not see its folder, which has to be on a file system",
            "that all nodes share (HPCREMOTE_DIR says where it is)",
        ]
    else:
        try:
            connect(connection, _PATIENCE).transport.close(0.0)
        except NotConnected as error:
            lines = [*str(error).splitlines(), _remedy(connection, host)]
        else:
            return True
    for line in lines:
        say(f"{PROBE}{line}")
    return False


def _await(path: str, wait: float) -> Connection:
    deadline = time.monotonic() + wait
    while True:
        try:
            return read(path, "engine")
        except ConnectionFileError as error:
            if time.monotonic() > deadline:
                raise ConnectionFileError(f"{error} (waited {wait:g} s)") from None
        time.sleep(_LOOK_AGAIN)


def _remedy(connection: Connection, host: str) -> str:
    profile = connection.profile
    return (
        f"Set `interface:` in profile {profile!r} to a name or address of {connection.host} that {host} can "
        "reach, or have the controller run in the job (`controller: job`)"
    )
