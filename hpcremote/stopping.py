"""How clusters and their engine sets are ended, whoever started them, and from wherever.

::

    stop() ─┬─ started by hand ──▶ the controller is asked who its processes are, and to end
            ├─ in a job ─────────▶ it is asked to end; the jobs are cancelled in any case
            ├─ on this machine ──▶ ending.end()
            └─ on another one ───▶ it is asked to end; jobs can be cancelled from here
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hpcremote import clusters, connection, files
from hpcremote.errors import ClusterNotFound, ConnectionFileError, LaunchError, NotConnected
from hpcremote.launch import adding, ending, process, record
from hpcremote.launch.batch import jobs, more
from hpcremote.launch.byhand import ByHand

if TYPE_CHECKING:
    from pathlib import Path

    from hpcremote.client.client import Client
    from hpcremote.client.sets import EngineSet

#: Seconds that a controller has to answer.
_PATIENCE = 5.0
#: Seconds that a controller has to end when its engines have had their time.
_LEEWAY = 2.0
_LOOK_AGAIN = 0.1


def stop(profile_name: str, cluster_id: str, *, timeout: float = 10.0) -> None:
    """End a cluster that anybody of this user started, here or on another machine.

    Raises:
        ClusterNotFound: there is none of that profile and id.
        LaunchError: it cannot be ended, or not from here.
    """
    found = clusters.named(profile_name, cluster_id)
    if isinstance(found, ByHand):
        _stop_by_hand(found, timeout)
    elif found.controller_at != "here":
        _stop_in_job(found, timeout)
    elif found.is_here:
        ending.end(found, polite=timeout)
    else:
        _stop_elsewhere(found, timeout)


def stop_set(profile_name: str, cluster_id: str, number: int, *, timeout: float = 10.0) -> None:
    """End one engine set of a cluster, ``Client.set(number)``, and its job if it is one.

    Raises:
        IndexError: there is no such set.
        LaunchError: it cannot be ended, or not from here.
    """
    from hpcremote.client.client import Client as Connected

    folder = files.cluster_dir(profile_name, cluster_id)
    with Connected(clusters.connection_of(profile_name, cluster_id)) as rc:
        chosen = rc.set(number)
        job_key = rc.link.query("jobs").get(chosen.set_id, "")
        if job_key:
            more.check_apart(folder, job_key)
        mark, known = ("", []) if job_key else _processes_of(rc, chosen, folder)
        if ids := chosen.ids:
            rc.link.shutdown(ids, controller=False)
            rc.link.wait(lambda: not chosen.alive, timeout)
        if job_key:
            more.end(folder, job_key)
            return
        adding.end(folder, mark, known, polite=_LEEWAY)
        if not mark and not rc.link.wait(lambda: not chosen.alive, _LEEWAY):
            left = ", ".join(chosen.hosts)
            raise LaunchError(
                f"engine {chosen.base} on {left} does not end, and can be ended only with the cluster"
            )


def _processes_of(rc: Client, chosen: EngineSet, folder: Path) -> tuple[str, list[process.Process]]:
    """Return the mark that only processes of a set carry, or nothing, and those that are known here.

    Raises:
        LaunchError: it can be ended only on another machine, or by who started it.
    """
    found = record.read(folder)
    marks = rc.link.query("marks")
    mark = marks.get(chosen.set_id, "")
    if found is None or not mark:
        raise LaunchError(
            f"engine set {chosen.number} was started by hand: end it as it was started, or by "
            f"Client.shutdown({chosen.ids})"
        )
    if not found.is_here:
        raise LaunchError(f"{found.name} was started on {found.host}: stop_engines() does its work there")
    living = list(rc.link.engines.values())
    known = [
        process.of_pid(one.pid) for one in living if (one.set_id, one.host) == (chosen.set_id, found.host)
    ]
    # Engines without MPI are sets of one: others may carry the same mark.
    shared = any(marks.get(one.set_id) == mark for one in living if one.set_id != chosen.set_id)
    return ("" if shared else mark), known


def _stop_elsewhere(found: record.Record, timeout: float) -> None:
    """Its processes are on another machine: we can only ask the controller. Jobs can be ended from here."""
    with _locked(found, timeout) as now:
        if now is None:
            return
        now.changed_at_the_end(state="stopping")
    # Not locked from here on: the controller ends what it has left, and removes the record.
    with _undone_if_it_fails(now):
        try:
            _ask_to_end(clusters.connection_of(now.profile, now.cluster_id), now.name, timeout)
        except (ClusterNotFound, NotConnected) as error:
            jobs.cancel(now.jobs)
            raise LaunchError(
                f"{now.name} was started on {now.host} and does not answer: stop it there\n{error}"
            ) from error
    deadline = time.monotonic() + timeout + _LEEWAY
    while record.is_written_down(now.folder) and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN)
        with contextlib.suppress(FileNotFoundError):  # that may be gone as well
            os.listdir(now.folder.parent)  # has network file systems look again
    jobs.cancel(now.jobs, patience=timeout)
    record.forget(now)


def _stop_in_job(found: record.Record, timeout: float) -> None:
    """Its controller is in the job: it is asked to end, and the job is ended in any case."""
    patience = 0.0
    with _locked(found, timeout) as now:
        if now is None:
            return
        now.changed_at_the_end(state="stopping")
        with _undone_if_it_fails(now):
            if (now.folder / "client.json").exists():
                with contextlib.suppress(NotConnected, ClusterNotFound, ConnectionFileError, LaunchError):
                    _ask_to_end(clusters.connection_of(now.profile, now.cluster_id), now.name, timeout)
                    patience = timeout
            jobs.cancel(now.jobs, patience=patience)
        record.forget(now)


@contextlib.contextmanager
def _locked(found: record.Record, timeout: float) -> Iterator[record.Record | None]:
    """Hold a cluster's lock; give what is written down, with jobs that were submitted meanwhile.

    None: somebody else has stopped it.
    """
    with record.locked(found.folder, timeout + _LEEWAY + ending.patience_with(found)):
        now = record.read(found.folder)
        yield now if now is not None and now.mark == found.mark else None


@contextlib.contextmanager
def _undone_if_it_fails(now: record.Record) -> Iterator[None]:
    """Have the cluster not be one that is being stopped if it cannot be, or nobody wants that any more."""
    try:
        yield
    except BaseException:
        if record.is_written_down(now.folder):
            now.changed_at_the_end()
        raise


def _stop_by_hand(found: ByHand, timeout: float) -> None:
    """Nobody wrote its processes down: the controller is asked who they are, and to end."""
    if not found.is_here:
        try:
            _ask_to_end(found.connection, found.name, timeout)
        except NotConnected as error:
            raise LaunchError(
                f"the controller of {found.name} was started by hand on {found.host} (pid "
                f"{found.connection.pid}) and does not answer: stop it there, or remove {found.folder} if it "
                "has ended"
            ) from error
        return
    with record.locked(found.folder, timeout + _LEEWAY):
        if found.condition() != "stale":
            _end_by_hand(found, timeout)
        found.forget()


def _end_by_hand(found: ByHand, timeout: float) -> None:
    processes, polite = [found.controller], 0.0
    try:
        # Who answers has the key of that very cluster, so these are its processes.
        processes += _ask_to_end(found.connection, found.name, timeout=0.0, demand=False)
        polite = timeout + _LEEWAY
    except (NotConnected, TimeoutError):  # it hangs; its pid with its start time is its own
        pass
    # Nothing carries the uid as a mark: what has the user's own launcher, mpiexec perhaps, ends by itself.
    process.end(processes, found.connection.cluster_uid, (), polite=polite)


def _ask_to_end(
    where: connection.Connection, name: str, timeout: float, *, demand: bool = True
) -> list[process.Process]:
    """Ask a controller to end and return the engines on its machine; *demand* that it goes in time.

    Raises:
        NotConnected: it does not answer.
        LaunchError: it does not end.
    """
    from hpcremote.client.link import Link

    link = Link(where, timeout=_PATIENCE)
    try:
        # Looked up while they are known to live: a pid with a start time is nobody else's later.
        engines = [process.of_pid(engine.pid) for engine in link.engines.values() if engine.local]
        link.shutdown([], controller=True)
        if demand and not link.wait(lambda: link.lost is not None, timeout + _LEEWAY):
            raise LaunchError(f"{name} on {where.host} did not end within {timeout:g} s: stop it there")
        return engines
    finally:
        link.close()
