"""An engine set of a running cluster is ended and started again, in its controller's process.

::

    record ──▶ end the old processes ──▶ plan as at the first time ──▶ start ──▶ record
                                                                        │
                              the set registers (somebody else's news) ◀┘ ──▶ record

The cluster's lock is held while processes come and go, not while the engines start: who stops the cluster
meanwhile finds everything by the mark.
"""

from __future__ import annotations

import dataclasses
import signal
import socket
import threading
import time
from collections.abc import Sequence

from hpcremote import files
from hpcremote.errors import LaunchError
from hpcremote.launch import adding, catalog, job, memory, process, record, remote
from hpcremote.launch.batch import more
from hpcremote.launch.batch.draft import AGAIN
from hpcremote.launch.batch.more import More
from hpcremote.launch.job import REPLACES
from hpcremote.launch.process import Process
from hpcremote.launch.spec import Launcher
from hpcremote.profile import Profile

#: Seconds that engines have to end when they were asked, and then between SIGTERM and SIGKILL: those that
#: are restarted are stuck, as a rule.
_POLITE, _FIRM = 1.0, 1.0
#: Seconds to wait for somebody else who starts or stops the cluster.
_PATIENCE = 5.0
_LOOK_AGAIN = 0.05
#: A mark that nothing carries: of engines that are sets of one, and carry the same mark, one alone is to end.
_NOBODY = "-"


class Again:
    """Restarts engine sets of one cluster.

    Args:
        profile: the cluster's, with what was overridden.
        cluster_id: its name.
    """

    def __init__(self, profile: Profile, cluster_id: str) -> None:
        self._profile = profile
        self._folder = files.cluster_dir(profile.name, cluster_id)
        self._given_up = threading.Event()
        self._busy = threading.Lock()

    def give_up(self) -> None:
        """The cluster ends: nothing is started any more. Return when nothing is under way."""
        self._given_up.set()
        with self._busy:
            pass

    def in_our_job(self, job_key: str) -> bool:
        """Say whether engines are in the job that this process is in, too."""
        found = record.read(self._folder)
        return bool(job_key) and found is not None and found.home is not None and found.home.set == job_key

    def ask_script(self, set_id: str) -> list[Process]:
        """Tell our job's script to start its ranks once more, and return what runs of them on this machine.

        It has to know before they end, or it would end, too.
        """
        found = record.read(self._folder)
        assert found is not None  # noqa: S101 - it has our job
        files.write_private(self._folder / AGAIN, set_id.encode())
        return process.marked(process.of_set(found.mark, 1))

    def by_script(self, old: Sequence[Process], timeout: float, there: threading.Event) -> None:
        """End the ranks of our job, which its script then starts again; return when *there* is set.

        Args:
            old: what runs of them on this machine.
            timeout: seconds for all of it.
            there: is set when the new engines have registered.

        Raises:
            LaunchError: they do not end, or do not start again.
        """
        deadline = time.monotonic() + timeout
        if not process.wait_gone(old, (), _POLITE):
            process.send(old, signal.SIGTERM)
            if not process.wait_gone(old, (), _FIRM):
                process.send(old, signal.SIGKILL)
        log = record.log_folder(self._folder) / "engines.log"
        while not there.wait(_LOOK_AGAIN):
            what = "the cluster is ending" if self._given_up.is_set() else ""
            if time.monotonic() > deadline:
                waits = (self._folder / AGAIN).exists()
                what = f"the engines did not {'end' if waits else 'register'} within {timeout:g} s"
            if what:
                (self._folder / AGAIN).unlink(missing_ok=True)
                raise LaunchError(f"{what}\n{job.quote(log)}".rstrip())

    def submitted(self, set_id: str, job_key: str, size: int, timeout: float, there: threading.Event) -> None:
        """End the job that brought a set and submit another; return when *there* is set.

        Time in the queue does not count.

        Raises:
            LaunchError: it cannot be ended, or the new one does not start; then nothing of that is left.
        """
        begun = More(self._profile, self._folder.name, size)
        found = record.read(self._folder)
        if found is not None and any(one.set == job_key for one in found.jobs):
            more.end(self._folder, job_key)
        begun.launch(replaces=set_id)
        deadline = time.monotonic() + timeout
        try:
            while not there.wait(_LOOK_AGAIN):
                if begun.waiting:
                    deadline = time.monotonic() + timeout
                what = "the cluster is ending" if self._given_up.is_set() else ""
                if time.monotonic() > deadline:
                    what = f"the engines did not register within {timeout:g} s"
                if trouble := begun.failure(what) if what else begun.trouble():
                    raise trouble
        except LaunchError:
            begun.abandon()
            raise

    def __call__(
        self,
        set_id: str,
        mark: str,
        size: int,
        members: Sequence[tuple[str, int]],
        timeout: float,
        there: threading.Event,
    ) -> None:
        """End what is left of a set and start it again; return when *there* is set.

        Args:
            set_id: the set.
            mark: what its processes carry.
            size: how many engines it has.
            members: host and process id of each.
            timeout: seconds for all of it.
            there: is set when the new engines have registered.

        Raises:
            LaunchError: it cannot be ended, or it does not start; then nothing new is left running.
        """
        deadline = time.monotonic() + timeout
        begun = self._start(set_id, mark, size, members)
        try:
            self._await(begun, there, deadline, timeout)
        except LaunchError:
            together = begun.plan.launcher.ranks == "together"
            with self._busy:
                process.end(begun.processes, mark if together else _NOBODY, (), polite=0.0, firm=_FIRM)
                if begun.plan.dealt:  # what an ssh started outlives it
                    remote.end(self._folder, mark, carries=f"{REPLACES}={set_id}", forget=False)
            raise
        self._write_memory()

    def _start(self, set_id: str, mark: str, size: int, members: Sequence[tuple[str, int]]) -> job.Job:
        with self._busy, record.locked(self._folder, _PATIENCE):
            found = record.read(self._folder)
            self._check(found, mark)
            assert found is not None  # noqa: S101 - it would not have passed
            launcher, profile = catalog.load(self._profile.launcher), self._profile
            old: tuple[Process, ...] = ()
            if launcher.ranks == "host":
                names = remote.end_engines(self._folder, mark, members)
                profile = dataclasses.replace(profile, hosts=_dealt(names, size) or profile.hosts)
            else:
                old = self._end_here(found, launcher, mark, members)
            self._check(found, mark)  # that took a while
            plan = job.plan(
                launcher, profile, size, self._words(), mark, cwd=found.cwd, more={REPLACES: set_id}
            )
            begun = job.Job(plan, adding.log_of(self._folder, mark))
            for child in begun.children:
                threading.Thread(target=child.wait, name="reaper", daemon=True).start()
            kept = [one for one in found.engines if one not in old and one.alive()]
            found.changed(engines=(*kept, *begun.processes))
            return begun

    def _end_here(
        self, found: record.Record, launcher: Launcher, mark: str, members: Sequence[tuple[str, int]]
    ) -> tuple[Process, ...]:
        """End what is left of a set, and return what of it was written down."""
        each = launcher.ranks == "each"
        here = {pid for host, pid in members if host == socket.gethostname()}
        old = _chosen(found, here if each else {one.pid for one in process.marked(mark)})
        process.wait_gone(old, (), _POLITE)
        process.end(old, _NOBODY if each else mark, (), polite=0.0, firm=_FIRM)
        if not each:
            memory.remove(found.memory)
            remote.end(self._folder, mark, forget=False)
        return old

    def _check(self, found: record.Record | None, mark: str) -> None:
        if self._given_up.is_set():
            raise LaunchError("the cluster is ending")
        if found is None or found.mark != mark.partition(".")[0]:
            raise LaunchError(
                "these engines were not started together with this controller (there is no record of them): "
                "start them again as they were started"
            )
        if found.state != "running":
            raise LaunchError(f"{found.name} is {found.state}: try again when it runs")

    def _words(self) -> list[str]:
        return [job.python_of(self._profile), *job.engine_words(self._profile, self._folder)]

    def _await(self, begun: job.Job, there: threading.Event, deadline: float, timeout: float) -> None:
        while not there.wait(_LOOK_AGAIN):
            if self._given_up.is_set():
                raise LaunchError("the cluster is ending")
            what = begun.ended()
            if not what and time.monotonic() > deadline:
                what = f"the engines did not register within {timeout:g} s"
            if what:
                meaning = begun.meaning()
                said = f"{what}: {meaning}" if meaning else what
                raise LaunchError(f"{said}\n{job.quote(begun.log)}".rstrip())

    def _write_memory(self) -> None:
        """Write down the shared memory that the new engines' MPI library has made."""
        with self._busy, record.locked(self._folder, _PATIENCE):
            found = record.read(self._folder)
            if found is not None and found.state == "running":
                found.changed(memory=memory.mapped(process.marked(found.mark)))


def _dealt(names: Sequence[str], size: int) -> tuple[str, ...]:
    """Return ``hosts:`` for a set that starts again where it was."""
    return tuple(f"{name}:{size}" for name in names)


def _chosen(found: record.Record, pids: set[int]) -> tuple[Process, ...]:
    return tuple(one for one in found.engines if one.pid in pids)
