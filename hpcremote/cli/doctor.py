"""``hpcremote doctor``: check what may keep hpcremote from working here, and say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hpcremote import profile
from hpcremote.cli import exits, options
from hpcremote.doctor import batch, crypto, limits, mpi, network, storage, trial, versions
from hpcremote.doctor.finding import OK, PROBLEM, Finding
from hpcremote.errors import HPCRemoteError
from hpcremote.profile import Profile

_SIGNS = {OK: "ok", "warning": "warning", PROBLEM: "PROBLEM"}


def run(words: Sequence[str]) -> int:
    """Run the command; the exit status is 0 unless there is a problem."""
    made = options.parser(
        "doctor",
        "Check what may keep hpcremote from working here, and say what to do. "
        "The exit status is 1 if there is a problem, 0 otherwise.",
        several=True,
    )
    options.add_settings(made)
    made.add_argument(
        "--trial", action="store_true", help="start and end the profile's cluster, a rank a node"
    )
    made.add_argument("--host", metavar="HOST", default="", help="compare versions with this host, by ssh")
    made.add_argument("--json", action="store_true", help="for programs")
    args = made.parse_args(words)
    source = options.profile_name(args.profile)
    chosen = profile.load(source, dict(args.settings))
    found = []
    for finding in findings(chosen, source, dict(args.settings), host=args.host, with_trial=args.trial):
        found.append(finding)
        if not args.json:
            print("\n".join(lines(finding)), flush=True)
    if args.json:
        print(json.dumps([one._asdict() for one in found], indent=2))
    else:
        print(summary(found))
    return exits.ERROR if any(one.verdict == PROBLEM for one in found) else exits.OK


def findings(
    chosen: Profile, source: str, settings: dict[str, Any], *, host: str, with_trial: bool
) -> Iterator[Finding]:
    """Yield what the checks find, one group after the other."""
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("versions", lambda: versions.judge(versions.probe(chosen, host))),
        ("MPI", lambda: mpi.judge(mpi.probe(chosen))),
        ("network", lambda: network.judge(network.probe(chosen))),
        ("encryption", lambda: crypto.judge(crypto.probe())),
        ("files", lambda: storage.judge(storage.probe())),
        ("limits", lambda: limits.judge(limits.probe(chosen))),
        ("batch", lambda: batch.judge(batch.probe(chosen))),
    ]
    if with_trial:
        checks.append(("trial", lambda: trial.judge(trial.probe(chosen, source, settings))))
    for group, check in checks:
        try:
            yield from check()
        except (HPCRemoteError, OSError) as error:  # the other checks are worth having all the same
            yield Finding(group, PROBLEM, str(error), "mend that first")


def lines(one: Finding) -> list[str]:
    """Return a finding in words."""
    said = [f"{_SIGNS[one.verdict]:<8} {one.group:<11} {one.said}"]
    return [*said, f"{'':<20} → {one.remedy}"] if one.remedy else said


def summary(found: Sequence[Any]) -> str:
    """Return how many of which there are."""
    problems = sum(one.verdict == PROBLEM for one in found)
    warnings = sum(one.verdict == "warning" for one in found)
    if not problems:
        return f"nothing is wrong; {warnings} warning{'' if warnings == 1 else 's'}"
    return (
        f"{problems} problem{'' if problems == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}"
    )
