"""An engine set of a running cluster is ended and started again, in its controller's process.

::

    record ──▶ end the old processes ──▶ plan as at the first time ──▶ start ──▶ record
                                                                        │
                              the set registers (somebody else's news) ◀┘ ──▶ record

The cluster's lock is held while it is started, not while the engines end and come: who stops the cluster
meanwhile finds everything by the mark.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence

from hpcremote import files
from hpcremote.errors import LaunchError
from hpcremote.launch import adding, catalog, job, process, record, remote
from hpcremote.launch.adding import Adding, Here
from hpcremote.launch.attempt import attempt
from hpcremote.launch.batch import more
from hpcremote.launch.batch.more import More
from hpcremote.launch.process import Process
from hpcremote.profile import Profile

#: Seconds that engines have to end when they were asked, and then between SIGTERM and SIGKILL: those that
#: are restarted are stuck, as a rule.
_POLITE, _FIRM = 1.0, 1.0
_LOOK_AGAIN = 0.05


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
        """The cluster ends: nothing comes or goes by us any more. Return when nothing is under way.

        What is there then is written down, and whoever calls this ends it.
        """
        self._given_up.set()
        with self._busy:
            pass

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Whatever comes or goes does so in here, so that :meth:`give_up` waits for it.

        Raises:
            LaunchError: the cluster ends.
        """
        with self._busy:
            if self._given_up.is_set():
                raise LaunchError("the cluster is ending")
            yield

    def _abandon(self, begun: Adding) -> None:
        with self._busy:
            if not self._given_up.is_set():  # else it ends with the cluster
                begun.abandon()

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
        files.write_private(self._folder / record.AGAIN, set_id.encode())
        return process.marked(process.of_set(found.mark, 1))

    def by_script(self, old: Sequence[Process], timeout: float, there: threading.Event) -> None:
        """End the ranks of our job, which its script then starts again; return when *there* is set.

        Args:
            old: what runs of them on this machine.
            timeout: seconds for all of it.
            there: is set when the new engines have registered.

        Raises:
            LaunchError: they do not end, or do not start again in time. They may still come: to end what the
                script has started would be to end the job, and us.
        """
        deadline = time.monotonic() + timeout
        if not process.wait_gone(old, (), _POLITE):
            process.send(old, signal.SIGTERM)
            if not process.wait_gone(old, (), _FIRM):
                process.send(old, signal.SIGKILL)
        request = self._folder / record.AGAIN
        while not there.wait(_LOOK_AGAIN):
            what = ""
            if time.monotonic() > deadline:
                what = f"the engines did not {'end' if request.exists() else 'register'} within {timeout:g} s"
            if self._given_up.is_set():
                request.unlink(missing_ok=True)
                what = "the cluster is ending"
            if what:
                raise job.failure(what, "", job.quote(record.log_folder(self._folder) / "engines.log"))

    def submitted(self, set_id: str, job_key: str, size: int, timeout: float, there: threading.Event) -> None:
        """End the job that brought a set and submit another; return when *there* is set.

        Time in the queue does not count.

        Raises:
            LaunchError: it cannot be ended, or the new one does not start; then nothing of that is left.
        """
        begun = More(self._profile, self._folder.name, size)
        with self._at_work():
            more.end(self._folder, job_key)
        with attempt(lambda: self._abandon(begun)):
            with self._at_work():
                begun.launch(replaces=set_id)
            self._await(begun, there, time.monotonic() + timeout, timeout)
        begun.ready()

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
        with self._at_work():
            begun = Here(self._end(mark, size, members), self._folder.name, size)
        with attempt(lambda: self._abandon(begun)):
            with self._at_work():
                begun.launch(replaces=set_id, mark=mark)
            self._await(begun, there, deadline, timeout)
        with self._at_work():
            begun.ready()

    def _end(self, mark: str, size: int, members: Sequence[tuple[str, int]]) -> Profile:
        """End a set of processes, and return the profile by which it starts again where it was."""
        found = record.read(self._folder)
        if found is None or found.mark != mark.partition(".")[0]:
            raise LaunchError(
                "these engines were not started together with this controller (there is no record of them): "
                "start them again as they were started"
            )
        if found.state != "running":
            raise LaunchError(f"{found.name} is {found.state}: try again when it runs")
        ranks = catalog.load(self._profile.launcher).ranks
        if ranks == "host":
            names = remote.end_engines(self._folder, mark, members)
            hosts = tuple(f"{name}:{size}" for name in names) or self._profile.hosts
            return dataclasses.replace(self._profile, hosts=hosts)
        # Engines that are sets of one carry the same mark: one alone is to end.
        alone = "" if ranks == "each" else mark
        here = {pid for host, pid in members if host == socket.gethostname()}
        pids = {one.pid for one in process.marked(mark)} if alone else here
        old = [one for one in found.engines if one.pid in pids]
        process.wait_gone(old, (), _POLITE)
        adding.end(self._folder, alone, old, firm=_FIRM)
        return self._profile

    def _await(self, begun: Adding, there: threading.Event, deadline: float, timeout: float) -> None:
        """Return when *there* is set, by the *deadline*; time in the queue does not count."""
        while not there.wait(_LOOK_AGAIN):
            if self._given_up.is_set():
                raise LaunchError("the cluster is ending")
            if trouble := begun.trouble():
                raise trouble
            if begun.waiting:
                deadline = time.monotonic() + timeout
            if time.monotonic() > deadline:
                raise begun.failure(f"the engines did not register within {timeout:g} s")
