"""``hpcremote stacks``: where engines are, also while they hang."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hpcremote import clusters
from hpcremote.cli import exits, options


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser("stacks", "Show where engines are, also while they hang.")
    made.add_argument("--native", action="store_true", help="C code too, by py-spy, eu-stack or gdb")
    made.add_argument("--json", action="store_true", help="for programs: each engine's stack as it is")
    args = made.parse_args(words)
    from hpcremote.client.stacks import look

    chosen = options.pick(args.profile, args.cluster_id)
    link = clusters.link_of(chosen.profile, chosen.cluster_id)
    try:
        seen = look(link, native=args.native)
    finally:
        link.close()
    if args.json:
        rows = {i: {"text": seen.text[i], "state": seen.state[i]} for i in seen.by_engine}
        print(json.dumps({i: {**row, "native": seen.native.get(i, "")} for i, row in rows.items()}, indent=2))
    else:
        print(seen)
    return exits.OK
