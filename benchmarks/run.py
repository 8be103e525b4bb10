"""Measure hpcremote beside its floor and its peers, on this machine, in one run.

::

    python benchmarks/run.py                      everything: about seven minutes
    python benchmarks/run.py --quick              fewer samples and rounds
    python benchmarks/run.py --only call,push     some rows
    python benchmarks/run.py --no-peers           hpcremote and its floor
    python benchmarks/run.py --peers dask

The table goes to stdout and ``benchmarks/results/latest.md``, every sample to ``latest.json`` beside it.
docs/explanation/performance.md says what each row means.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import environments
import figures
import sessions
import table

RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    words = lambda text: [word for word in text.split(",") if word]  # noqa: E731
    parser = argparse.ArgumentParser(description="Measure hpcremote beside its floor and its peers.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples, one round")
    parser.add_argument("--rounds", type=int, help="how often everybody takes a turn (3; quick: 1)")
    parser.add_argument("--only", type=words, default=[], metavar="ROW,...", help="some rows, by key")
    parser.add_argument(
        "--peers", type=words, default=list(environments.REQUIREMENTS), metavar="PEER,...", help="some peers"
    )
    parser.add_argument("--no-peers", action="store_const", const=[], dest="peers", help="no peers")
    parser.add_argument("--strict", action="store_true", help="exit with 1 when a figure falls short")
    chosen = parser.parse_args()
    strangers = [peer for peer in chosen.peers if peer not in environments.REQUIREMENTS]
    if strangers:
        parser.error(
            f"no peer is called {', '.join(strangers)}; there are {', '.join(environments.REQUIREMENTS)}"
        )
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    return chosen


def plan(rows: list[figures.Row], peers: list[str]) -> list[tuple[sessions.Session, list[str]]]:
    """The sessions that these rows need, each with its metrics."""
    planned = []
    for session in sessions.SESSIONS:
        cells = [cell for row in rows for cell in row.cells.values() if cell.session == session.name]
        if cells and (not session.peer or session.peer in peers):
            planned.append((session, list(dict.fromkeys(cell.metric for cell in cells))))
    return planned


def pythons(planned: list[tuple[sessions.Session, list[str]]]) -> dict[str, Path]:
    """Peer → its Python; a peer whose environment cannot be made is left out."""
    wanted = dict.fromkeys(session.peer for session, _ in planned if session.peer)
    found = {peer: prepared(peer) for peer in wanted}
    return {"": Path(sys.executable)} | {peer: python for peer, python in found.items() if python}


def prepared(peer: str) -> Path | None:
    """A peer's Python; None, and a word about why, when its environment cannot be made."""
    try:
        return environments.prepare(peer)
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"{peer} is left out: its environment could not be made ({error})", file=sys.stderr)
        return None


class Record:
    """What all sessions said so far."""

    def __init__(self) -> None:
        self.runs: table.Runs = {}
        self.units: table.Units = {}
        self.versions: dict[str, dict[str, str]] = {}
        self.troubles: list[str] = []

    def add(self, name: str, outcome: sessions.Outcome) -> None:
        """Take in one session's outcome."""
        for metric, said in outcome.samples.items():
            self.units[metric] = said["unit"]
            self.runs.setdefault(name, {}).setdefault(metric, []).append(said["samples"])
        self.versions.setdefault(name, {}).update(outcome.versions)
        if outcome.trouble:
            self.troubles.append(outcome.trouble)
            print(outcome.trouble, file=sys.stderr, flush=True)


def measure(chosen: argparse.Namespace, rows: list[figures.Row]) -> Record:
    """Let every session take its turn, in each round; odd rounds go backwards, so that drift cancels out."""
    planned = plan(rows, chosen.peers)
    interpreters = pythons(planned)
    ready = [turn for turn in planned if turn[0].peer in interpreters]
    record = Record()
    for number in range(chosen.rounds):
        for session, metrics in ready if number % 2 == 0 else reversed(ready):
            print(f"round {number + 1} of {chosen.rounds}: {session.name}", file=sys.stderr, flush=True)
            record.add(session.name, sessions.run(session, interpreters[session.peer], metrics, chosen.quick))
    return record


def machine() -> dict[str, Any]:
    """What the figures were measured on, without saying whose it is."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes"),
        "load": os.getloadavg()[0],
    }


def document(rows: list[figures.Row], record: Record, rounds: int, before: dict[str, Any]) -> str:
    """The table with what one must know to read it."""
    versions: dict[str, str] = {}
    for said in record.versions.values():
        versions.update(said)
    listed = "".join(f", {name} {version}" for name, version in sorted(versions.items()))
    heading = (
        f"Medians of {rounds} round{'s' * (rounds > 1)} (in brackets the range of the rounds' medians). "
        f"{before['when']}, {before['cpu']}, {before['cores']} cores (load {before['load']:.1f} before), "
        f"{before['system']}, Python {before['python']}{listed}."
    )
    lines = [heading, "", table.markdown(rows, record.runs, record.units)]
    if record.troubles:
        lines += ["Went wrong:", "", *(f"* {_brief(trouble)}" for trouble in record.troubles), ""]
    return "\n".join(lines)


def _brief(trouble: str) -> str:
    """The first line of a trouble, and the last, which is the one that says why."""
    first, *rest = trouble.splitlines()
    return f"{first}: {rest[-1].strip()}" if rest else first


def main() -> int:
    """Measure, write, judge."""
    chosen = arguments()
    rows = figures.select(chosen.only)
    before = machine()
    sessions.adopt_orphans()
    record = measure(chosen, rows)
    text = document(rows, record, chosen.rounds, before)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.md").write_text(text)
    raw = {"machine": before, "rounds": chosen.rounds, "quick": chosen.quick, **vars(record)}
    (RESULTS / "latest.json").write_text(json.dumps(raw) + "\n")
    print(text)
    judged = [verdict for row in rows for verdict in table.verdicts(row, record.runs, record.units)]
    good = all(verdict.passed for verdict in judged) and not record.troubles
    return 1 if chosen.strict and not good else 0


if __name__ == "__main__":
    sys.exit(main())
