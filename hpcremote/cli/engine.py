"""``hpcremote engine``: be an engine until told to end.

This module imports next to nothing: what it imports stays in every engine's memory. The words that a
launcher writes are read here; what people write goes to argparse.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from hpcremote.errors import HPCRemoteError

if TYPE_CHECKING:
    from hpcremote.connection import Connection


class _Options(NamedTuple):
    file: str | None = None
    wait: float = 30.0
    profile: str | None = None
    cluster_id: str | None = None
    mpi: bool | None = None


def run(words: Sequence[str]) -> int:
    """Run the command."""
    chosen = _by_launcher(words) or _by_argparse(words)
    log_to_stderr()
    from hpcremote.engine.main import run as work
    from hpcremote.engine.mpi import started_as_rank

    expect = os.environ.get("HPCREMOTE_EXPECT", "")
    use_mpi = started_as_rank() if chosen.mpi is None else chosen.mpi
    count = int(expect) if expect.isdigit() else None
    try:
        return work(_finder(chosen), wait=chosen.wait, expect=count, use_mpi=use_mpi)
    except (HPCRemoteError, OSError):
        raise
    except Exception:  # noqa: BLE001 (it is passed on, as text)
        from traceback import format_exc

        # In one piece: mpiexec mixes what its ranks write.
        os.write(2, format_exc().encode())
        return 1


def _by_launcher(words: Sequence[str]) -> _Options | None:
    if len(words) == 4 and words[0] == "--file" and words[2] == "--wait":
        return _Options(words[1], float(words[3]))
    return None


def _by_argparse(words: Sequence[str]) -> _Options:
    import argparse

    made = argparse.ArgumentParser(
        prog="hpcremote engine",
        description="Be an engine. Under mpiexec or srun each rank is one, and engine ids are ranks.",
        allow_abbrev=False,
    )
    made.add_argument("-p", "--profile", metavar="NAME", help="join the running cluster of this profile")
    made.add_argument("-c", "--cluster-id", metavar="ID", help="which cluster of that profile")
    made.add_argument("--file", metavar="engine.json", help="join the cluster of this connection file")
    made.add_argument(
        "--wait", metavar="SECONDS", type=float, default=30.0, help="for that file (default: 30)"
    )
    made.add_argument(
        "--mpi",
        action=argparse.BooleanOptionalAction,
        help="call MPI_Init or not (default: if started as a rank)",
    )
    return _Options(**vars(made.parse_args(words)))


def _finder(chosen: _Options) -> Callable[[], Connection]:
    from hpcremote import connection

    if chosen.file is not None:
        path = chosen.file
        return lambda: connection.read(path, "engine")
    return lambda: connection.find(chosen.profile, chosen.cluster_id, "engine")


def log_to_stderr() -> None:
    """Have our own log go to standard error."""
    import logging

    handler = logging.StreamHandler(sys.stderr)
    form = f"%(asctime)s %(levelname)s %(name)s[{os.getpid()}]: %(message)s"
    handler.setFormatter(logging.Formatter(form))
    ours = logging.getLogger("hpcremote")  # the root of all loggers is the user's
    ours.setLevel(os.environ.get("HPCREMOTE_LOG_LEVEL", "info").upper())
    ours.addHandler(handler)
    ours.propagate = False
