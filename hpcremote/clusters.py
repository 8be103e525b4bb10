"""Clusters by name: what is known of one, whoever started it. How one is ended: see ``stopping``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from hpcremote import connection, files
from hpcremote.errors import ClusterNotFound, HPCRemoteError
from hpcremote.launch import failed, record
from hpcremote.launch.batch import jobs
from hpcremote.launch.byhand import ByHand, find
from hpcremote.launch.watch import PHASES, reached

if TYPE_CHECKING:
    from hpcremote.client.link import Link
    from hpcremote.wire.messages import EngineInfo

#: Seconds that a controller has to answer.
_PATIENCE = 5.0
#: Seconds that it has while it starts: then no answer is no sign of trouble.
_SOON = 2.0


class Status(NamedTuple):
    """What is known of a cluster.

    ``condition`` is queued, starting, running, stopping, broken (some of its processes are gone), stale (all
    are), or elsewhere (it was started on another machine and does not answer). ``n`` is how many engines
    were asked for, None where the controller was started by hand. ``engines`` maps each host to the ids
    there, as far as the controller answers; ``ended`` says of engines that are gone how they went. Of a
    start, ``phases`` has how many engines are through each (see ``Progress``), if it answers. ``jobs``
    has for each job of a batch system its ``id``, ``scheduler``, what it ``brings`` (engines, or the
    controller alone), ``state`` in words, and ``meaning``: why it ended, if known.
    ``time_left`` is how many seconds are left until the first of the engines' jobs ends, None without limit.

    Where there is no cluster, but the last start of one failed, the condition is ``failed``; ``failed`` is
    when, in seconds since the epoch, and ``failure`` the whole error, with the scheduler's own words.
    """

    profile: str
    cluster_id: str
    condition: str
    n: int | None
    launcher: str
    host: str
    started: float
    controller: int | None
    processes: list[int]
    engines: dict[str, list[int]]
    ended: dict[str, str]
    jobs: list[dict[str, str]]
    time_left: float | None = None
    failed: float | None = None
    failure: str = ""
    phases: dict[str, int] | None = None

    @property
    def running(self) -> bool:
        """Whether one can connect to it."""
        return self.condition == "running"


def status(profile_name: str, cluster_id: str) -> Status:
    """Return what is known of a cluster, or of its last start if that failed.

    Raises:
        ClusterNotFound: there is none of that profile and id.
    """
    try:
        return _status(named(profile_name, cluster_id))
    except ClusterNotFound:
        last = failed.read(files.cluster_dir(profile_name, cluster_id))
        if last is None:
            raise
    return Status(
        profile=profile_name,
        cluster_id=cluster_id,
        condition="failed",
        n=last.n,
        launcher=last.launcher,
        host=last.host,
        started=last.started,
        controller=None,
        processes=[],
        engines={},
        ended={},
        jobs=[],
        failed=last.failed,
        failure=last.said,
    )


def time_left(profile_name: str, cluster_id: str) -> float | None:
    """Return the seconds until the first of the engines' jobs ends; None without a limit that is known.

    Raises:
        ClusterNotFound: there is none of that profile and id.
    """
    return _status(named(profile_name, cluster_id)).time_left


def _status(found: record.Record | ByHand) -> Status:
    condition, states = _judged(found, jobs.RECENT)
    told = _Told()
    if condition in ("running", "elsewhere", "starting"):
        try:
            told = _ask(found, _SOON if condition == "starting" else _PATIENCE)
            condition = "starting" if _starts(found, told) else "running"
        except (HPCRemoteError, TimeoutError):
            if condition == "running":  # it may just have gone
                condition, states = _judged(found)
            condition = condition if condition != "running" else "broken"
    return Status(
        profile=found.profile,
        cluster_id=found.cluster_id,
        condition=condition,
        n=found.n,
        launcher=found.launcher,
        host=found.host,
        started=found.started,
        controller=found.controller.pid if found.controller else None,
        processes=_pids(found, told.engines),
        engines=_by_host(told.engines),
        ended=dict(sorted(told.ended.items(), key=lambda one: int(one[0]))),
        jobs=[_job(state) for state in states],
        time_left=told.left,
        phases=dict(zip(PHASES, told.reached, strict=True)) if _starts(found, told) else None,
    )


def _judged(found: record.Record | ByHand, age: float = 0.0) -> tuple[str, list[jobs.State]]:
    """Return how a cluster is and how its jobs are, seen at most *age* seconds ago."""
    condition = found.condition()
    if isinstance(found, ByHand):
        return condition, []
    states = jobs.look(found.jobs, age)
    if found.controller_at != "here" or condition == "broken":
        condition = jobs.judged(found, condition, states)
    return condition, states


def _starts(found: record.Record | ByHand, told: _Told) -> bool:
    """Say whether a start is at it still: who should have written down that it is over may be gone."""
    if isinstance(found, ByHand) or found.state != "starting":
        return False
    return bool(told.reached) and len(told.engines) + len(told.ended) < found.n


def _job(state: jobs.State) -> dict[str, str]:
    job = state.job
    brings = "controller" if job.set == record.CONTROLLER else "engines"
    told = {"id": job.id, "scheduler": job.scheduler, "brings": brings, "state": str(state)}
    return {**told, "meaning": jobs.explain(state)}


def conditions(found: Sequence[record.Record | ByHand]) -> list[str]:
    """Return how clusters are; schedulers are asked once, about all of them."""
    records = [one for one in found if isinstance(one, record.Record)]
    told = iter(jobs.conditions(records))
    return [next(told) if isinstance(one, record.Record) else one.condition() for one in found]


def named(profile_name: str, cluster_id: str) -> record.Record | ByHand:
    """Return what is written down of a cluster.

    Raises:
        ClusterNotFound: there is none of that profile and id.
    """
    folder = files.cluster_dir(profile_name, cluster_id)
    found = record.read(folder) or find(folder)
    if found is None:
        raise ClusterNotFound(
            f"there is no cluster {cluster_id!r} of profile {profile_name!r}; see hpcremote list"
        )
    return found


def connection_of(profile_name: str, cluster_id: str) -> connection.Connection:
    """Return how to connect to a cluster.

    Raises:
        ClusterNotFound: it does not run.
        ConnectionFileError: its file is wrong.
    """
    path = files.cluster_dir(profile_name, cluster_id) / "client.json"
    if not path.exists():
        raise ClusterNotFound(
            f"cluster {cluster_id!r} of profile {profile_name!r} does not run; start() it first"
        )
    return connection.read(path)


def link_of(profile_name: str, cluster_id: str, timeout: float = _PATIENCE) -> Link:
    """Return a connection to a cluster's controller, without a client's views."""
    from hpcremote.client.link import Link

    return Link(connection_of(profile_name, cluster_id), timeout=timeout)


class _Told(NamedTuple):
    """What a controller tells: engines by id, how those that are gone went, seconds until their jobs end.

    ``reached`` is how many engines are through each phase of a start.
    """

    engines: Sequence[EngineInfo] = ()
    ended: Mapping[str, str] = MappingProxyType({})
    left: float | None = None
    reached: Sequence[int] = ()


def _ask(found: record.Record | ByHand, patience: float) -> _Told:
    link = link_of(found.profile, found.cluster_id, patience)
    try:
        info = link.query("info", patience)
        engines = sorted(link.engines.values(), key=lambda one: one.id)
        return _Told(engines, info["ended"], link.walltime.left(), reached(info["starting"], len(engines)))
    finally:
        link.close()


def _by_host(engines: Sequence[EngineInfo]) -> dict[str, list[int]]:
    hosts: dict[str, list[int]] = {}
    for engine in engines:
        hosts.setdefault(engine.host, []).append(engine.id)
    return hosts


def _pids(found: record.Record | ByHand, engines: Sequence[EngineInfo]) -> list[int]:
    """Return the processes that are known on the controller's machine."""
    if isinstance(found, ByHand):
        return [found.connection.pid, *(engine.pid for engine in engines if engine.local)]
    return [one.pid for one in found.processes]
