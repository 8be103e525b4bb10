"""``hpcremote list``: all clusters of this user; dead ones are marked."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from hpcremote import clusters
from hpcremote.cli import exits, options
from hpcremote.cli.status import span


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser("list", "List your clusters.", several=True)
    made.add_argument("--json", action="store_true", help="for programs")
    args = made.parse_args(words)
    found = options.records(args.profile)
    rows = [_row(one, condition) for one, condition in zip(found, clusters.conditions(found), strict=True)]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print("\n".join(table(rows, time.time())) if rows else "no clusters; start one with hpcremote start")
    return exits.OK


def _row(one: options.Found, condition: str) -> dict[str, object]:
    return {
        "profile": one.profile,
        "cluster_id": one.cluster_id,
        "state": condition,
        "n": one.n,
        "host": one.host,
        "started": one.started,
        "launcher": one.launcher,
    }


def table(rows: Sequence[dict[str, object]], now: float) -> list[str]:
    """Return the lines of the table."""
    cells = [("PROFILE", "CLUSTER", "STATE", "N", "HOST", "UP", "LAUNCHER")]
    for row in rows:
        up = span(now - float(str(row["started"]))) if row["state"] in ("running", "elsewhere") else "-"
        count = "-" if row["n"] is None else row["n"]
        cells.append(
            tuple(
                str(cell)
                for cell in (
                    row["profile"],
                    row["cluster_id"],
                    row["state"],
                    count,
                    row["host"],
                    up,
                    row["launcher"],
                )
            )  # type: ignore[arg-type]
        )
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
