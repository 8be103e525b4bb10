"""``hpcremote connect``: a tunnel to a cluster elsewhere, and a connection file here while it is there."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcremote import files
from hpcremote.cli import exits, options
from hpcremote.cli.signals import Ended, ended_by_signals
from hpcremote.client.arguments import connect
from hpcremote.client.link import Link
from hpcremote.connection import Connection
from hpcremote.errors import AlreadyRunning
from hpcremote.ids import is_cluster_id
from hpcremote.launch import record
from hpcremote.net.tunnel import FIRST, Tunnel, server_of

#: How long the controller may take to answer, in seconds.
_ANSWER = 15.0


def run(words: Sequence[str]) -> int:
    """Run the command; it ends by Ctrl-C, or when the cluster does."""
    made = options.parser(
        "connect",
        "Reach a cluster on another machine through ssh (your own ssh, with its configuration). "
        "Clients on this machine find it by its profile for as long as this command runs.",
    )
    made.add_argument("server", metavar="[USER@]HOST[:PORT]", help="where ssh goes: a login node")
    made.add_argument("--as", dest="name", metavar="ID", help="call the cluster so on this machine")
    made.add_argument("--key", metavar="FILE", default="", help="private key for ssh")
    made.add_argument(
        "--ssh", metavar="COMMAND", default="", help="the ssh command (default: $HPCREMOTE_SSH, or ssh)"
    )
    made.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=FIRST, help="to connect (default: %(default)g)"
    )
    args = made.parse_args(words)
    if args.name and not is_cluster_id(args.name):
        made.error(f"--as {args.name!r}: letters, digits, '_', '.' and '-' only")
    tunnel = Tunnel(server_of(args.server, args.key, args.ssh), _say, patience=args.timeout)
    with ended_by_signals(), contextlib.closing(tunnel):
        try:
            link = connect(None, args.profile, args.cluster_id, _ANSWER, tunnel)
            with contextlib.closing(link):
                return _serve(link, tunnel, args.name)
        except (KeyboardInterrupt, Ended):
            return exits.OK


def _serve(link: Link, tunnel: Tunnel, name: str | None) -> int:
    here = link.connection.but(cluster_id=name or link.connection.cluster_id)
    with _offered(here, files.cluster_dir(here.profile, here.cluster_id)):
        _announce(here, tunnel, len(link.engines))
        link.wait(lambda: link.lost is not None)
        raise link.lost or AssertionError("it ended, and does not say why")


@contextlib.contextmanager
def _offered(here: Connection, folder: Path) -> Iterator[None]:
    """Have a connection file in the cluster's folder on this machine; it must not be in anybody's way."""
    with record.locked(files.private_dir(folder)):
        path = folder / "client.json"
        old = record.peek(path)
        if record.is_written_down(folder) or (old is not None and not old.is_stale):
            same = old is not None and old.cluster_uid == here.cluster_uid and not old.tunnel
            seen = "this machine sees the cluster's own folder" if same else "there is a cluster of that name"
            raise AlreadyRunning(
                f"{seen} ({folder}), which is left alone: "
                f"call this one otherwise here, as in --as {here.cluster_id}-far"
            )
        here.write(path)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: other clusters of the profile
            folder.parent.rmdir()


def _announce(here: Connection, tunnel: Tunnel, count: int) -> None:
    plural = "" if count == 1 else "s"
    print(
        f"connected to cluster {here.cluster_id!r} of profile {here.profile!r}, controller on {here.host}, "
        f"through {tunnel.where.destination}: {count} engine{plural}"
    )
    named = [] if here.profile == "default" else [f"profile={here.profile!r}"]
    if here.cluster_id != "default":
        named.append(f"cluster_id={here.cluster_id!r}")
    print(f"  connect:  rc = hpcremote.Client({', '.join(named)})")
    print("  end:      Ctrl-C")
    sys.stdout.flush()


def _say(text: str) -> None:
    print(f"hpcremote: {text}", file=sys.stderr, flush=True)
