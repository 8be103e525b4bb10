"""``hpcremote probe``: say whether this machine can reach a controller (a job script does so first)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hpcremote.cli import exits


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = argparse.ArgumentParser(
        prog="hpcremote probe",
        description="Try every address of a controller from here, and say what each answered if none does.",
        allow_abbrev=False,
    )
    made.add_argument("--file", metavar="engine.json", required=True, help="the engines' connection file")
    made.add_argument("--wait", metavar="SECONDS", type=float, default=0.0, help="for that file (default: 0)")
    args = made.parse_args(words)
    from hpcremote.launch.probe import probe

    return exits.OK if probe(args.file, args.wait, lambda line: print(line, flush=True)) else exits.ERROR
