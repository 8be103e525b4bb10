"""``hpcremote restart``: start engine sets of a running cluster again, under the same ids.

The controller stays, and so do its clients' connections. (To start everything anew, stop and start.)
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from hpcremote import clusters
from hpcremote.cli import exits, options
from hpcremote.client.client import Client
from hpcremote.client.sets import EngineSet
from hpcremote.errors import ConfigError, HPCRemoteError

#: How a set ended that a client had told to: with ``stop_engines``, say.
_ON_PURPOSE = "a client asked for it"


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser(
        "restart",
        "End a cluster's engines, stuck or dead as they may be, and start them again under the same ids. The "
        "controller and its clients stay connected; namespaces are new.",
    )
    made.add_argument(
        "--set",
        metavar="NUMBER",
        type=int,
        help="this engine set only, as in Client.set(NUMBER) (default: all that were not stopped on purpose)",
    )
    made.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=60.0, help="for each set (default: 60)"
    )
    args = made.parse_args(words)
    one = options.pick(args.profile, args.cluster_id)
    with Client(clusters.connection_of(one.profile, one.cluster_id)) as rc:
        sets = _chosen(rc, args.set)
        return max([_restart(each, args.timeout) for each in sets], default=exits.OK)


def _chosen(rc: Client, number: int | None) -> list[EngineSet]:
    if number is None:
        found = rc.engine_sets
        if not found:
            raise ConfigError("this cluster has had no engines yet: there is nothing to restart")
        return [one for one in found if one.alive or not one.cause.endswith(_ON_PURPOSE)] or found
    try:
        return [rc.set(number)]
    except IndexError as error:
        raise ConfigError(f"--set {number}: {error}") from None


def _restart(each: EngineSet, timeout: float) -> int:
    began = time.monotonic()
    try:
        each.restart(timeout)
    except (HPCRemoteError, TimeoutError) as error:
        print(f"hpcremote: engine set {each.number}: {error}", file=sys.stderr)
        return exits.of_error(error) if isinstance(error, HPCRemoteError) else 1
    ids = each.ids
    shown = f"engine {ids[0]}" if len(ids) == 1 else f"engines {ids[0]} to {ids[-1]}"
    print(f"engine set {each.number} is restarted: {shown} ({time.monotonic() - began:.1f} s)")
    return exits.OK
