"""Clusters by name: what is known of one, and how to end it, whoever started it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hpcremote import connection, files
from hpcremote.errors import ClusterNotFound, HPCRemoteError, LaunchError, NotConnected
from hpcremote.launch import record, startup

if TYPE_CHECKING:
    from hpcremote.client.link import Link


class Status(NamedTuple):
    """What is known of a cluster.

    ``condition`` is starting, running, stopping, broken (some of its processes are gone), stale (all
    are), or elsewhere (it was started on another machine and does not answer). ``engines`` maps each
    host to the ids there, as far as the controller answers; ``ended`` says of engines that are gone how
    they went.
    """

    profile: str
    cluster_id: str
    condition: str
    n: int
    launcher: str
    host: str
    started: float
    controller: int | None
    processes: list[int]
    engines: dict[str, list[int]]
    ended: dict[str, str]

    @property
    def running(self) -> bool:
        """Whether one can connect to it."""
        return self.condition == "running"


def status(profile_name: str, cluster_id: str) -> Status:
    """Return what is known of a cluster.

    Raises:
        ClusterNotFound: there is none of that profile and id.
    """
    found = _record(profile_name, cluster_id)
    condition = found.condition()
    engines: dict[str, list[int]] = {}
    ended: dict[str, str] = {}
    if condition in ("running", "elsewhere"):
        try:
            engines, ended = _engines(profile_name, cluster_id)
            condition = "running"
        except HPCRemoteError:
            condition = "elsewhere" if condition == "elsewhere" else "broken"
    return Status(
        profile=found.profile,
        cluster_id=found.cluster_id,
        condition=condition,
        n=found.n,
        launcher=found.launcher,
        host=found.host,
        started=found.started,
        controller=found.controller.pid if found.controller else None,
        processes=[one.pid for one in found.processes],
        engines=engines,
        ended=ended,
    )


def stop(profile_name: str, cluster_id: str, *, timeout: float = 10.0) -> None:
    """End a cluster that anybody of this user started, here or on another machine.

    Raises:
        ClusterNotFound: there is none of that profile and id.
        LaunchError: it cannot be ended, or not from here.
    """
    found = _record(profile_name, cluster_id)
    if found.is_here:
        startup.end(found, polite=timeout)
    else:
        _stop_elsewhere(found, timeout)


def _stop_elsewhere(found: record.Record, timeout: float) -> None:
    """Its processes are on another machine: we can only ask the controller."""
    link = None
    try:
        link = link_of(found.profile, found.cluster_id)
        link.shutdown([], controller=True)
        gone = link.wait(lambda: link.lost is not None, timeout + 2.0)
    except (ClusterNotFound, NotConnected) as error:
        raise LaunchError(
            f"{found.name} was started on {found.host} and does not answer: stop it there"
        ) from error
    finally:
        if link is not None:
            link.close()
    if not gone:
        raise LaunchError(f"{found.name} on {found.host} did not end within {timeout:g} s: stop it there")
    record.forget(found)


def _record(profile_name: str, cluster_id: str) -> record.Record:
    found = record.read(files.cluster_dir(profile_name, cluster_id))
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


def link_of(profile_name: str, cluster_id: str, timeout: float = 5.0) -> Link:
    """Return a connection to a cluster's controller, without a client's views."""
    from hpcremote.client.link import Link

    return Link(connection_of(profile_name, cluster_id), timeout=timeout)


def _engines(profile_name: str, cluster_id: str) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return the ids on each host, and how those that are gone went."""
    link = link_of(profile_name, cluster_id)
    try:
        hosts: dict[str, list[int]] = {}
        for engine in sorted(link.engines.values(), key=lambda engine: engine.id):
            hosts.setdefault(engine.host, []).append(engine.id)
        return hosts, link.query("info")["ended"]
    finally:
        link.close()
