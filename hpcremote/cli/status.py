"""``hpcremote status``: how a cluster is."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Sequence

from hpcremote import clusters
from hpcremote.cli import exits, options
from hpcremote.errors import ClusterNotFound
from hpcremote.launch import byhand, failed


def run(words: Sequence[str]) -> int:
    """Run the command; the exit status is 0 only for a cluster that runs."""
    made = options.parser(
        "status",
        "Say how a cluster is, or why its last start failed. The exit status is 0 only if it runs.",
    )
    made.add_argument("--json", action="store_true", help="for programs")
    args = made.parse_args(words)
    seen = clusters.status(*_meant(args.profile, args.cluster_id))
    print(json.dumps(seen._asdict(), indent=2) if args.json else "\n".join(lines(seen, time.time())))
    if seen.failed is not None:
        return exits.NO_CLUSTER
    return exits.OK if seen.running else exits.ERROR


def _meant(profile: str | None, cluster_id: str | None) -> tuple[str, str]:
    """Return profile and id of the cluster that is meant, or else of the last start if that failed."""
    try:
        chosen = options.pick(profile, cluster_id)
    except ClusterNotFound:
        several = options.records(options.named_profile(profile), cluster_id)
        folder = None if several else options.latest_ended(profile, cluster_id)
        if folder is None or failed.read(folder) is None:
            raise
        return folder.parent.name, folder.name
    return chosen.profile, chosen.cluster_id


def lines(seen: clusters.Status, now: float) -> list[str]:
    """Return a status in words."""
    if seen.failed is not None:
        what = f"there is no cluster {seen.cluster_id!r} of profile {seen.profile!r}"
        when = f"its last start failed {span(now - seen.failed)} ago on {seen.host}"
        return [f"{what}: {when}", textwrap.indent(seen.failure, "  ")]
    count = sum(map(len, seen.engines.values()))
    said = [
        f"cluster {seen.cluster_id!r} of profile {seen.profile!r}: {seen.condition}",
        f"  started     {span(now - seen.started)} ago on {seen.host}, {_launched(seen.launcher)}",
        f"  engines     {count}" + ("" if seen.n is None else f" of {seen.n}"),
    ]
    if seen.phases is not None:
        said.append("  starting    " + ", ".join(f"{name} {k}/{seen.n}" for name, k in seen.phases.items()))
    said += [f"    {host:<12} {ranges(ids)}" for host, ids in seen.engines.items()]
    said += [f"    engine {engine} ended: {cause}" for engine, cause in seen.ended.items()]
    for job in seen.jobs:
        what = f"{job['id']} ({job['scheduler']}) {job['state']}"
        said.append(f"  controller  job {what}" if job["brings"] == "controller" else f"  job         {what}")
        said += [f"    {line}" for line in job["meaning"].splitlines()]
    if seen.time_left is not None:
        said.append(f"  time left   {span(seen.time_left)}")
    pids = ", ".join(str(pid) for pid in seen.processes if pid != seen.controller)
    said.append(f"  processes   controller {seen.controller or '-'}; engines {pids or '-'}")
    if remedy := _remedy(seen, count):
        said.append(f"  remedy      {remedy}")
    return said


def _remedy(seen: clusters.Status, count: int) -> str:
    """Return the command that helps, and what it does; nothing if all is well or only time helps."""
    chosen = options.as_options(seen.profile, seen.cluster_id).split()
    if seen.condition in ("broken", "stale"):
        return " ".join(["hpcremote stop", *chosen, "ends and removes what is left"])
    if not seen.running or seen.n is None or count >= seen.n:
        return ""
    jobs = [job["state"] for job in seen.jobs if job["brings"] == "engines"]
    if not jobs:
        return " ".join(["hpcremote restart", *chosen, "starts the engines again, under the same ids"])
    if count == 0 and all(state.startswith("ended") for state in jobs):
        return " ".join(
            [
                "hpcremote start",
                *chosen,
                "--resubmit starts the next job, under the same ids (give --set again)",
            ]
        )
    return ""  # one that goes on, or is queued again


def _launched(launcher: str) -> str:
    return launcher if launcher == byhand.LAUNCHER else f"by {launcher}"


def span(seconds: float) -> str:
    """Return a time span as people say it."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def ranges(ids: Sequence[int]) -> str:
    """Return sorted ids as ranges: ``0-3,7``."""
    spans: list[list[int]] = []
    for each in ids:
        if spans and each == spans[-1][1] + 1:
            spans[-1][1] = each
        else:
            spans.append([each, each])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
