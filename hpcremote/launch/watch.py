"""Watching a start: phase by phase, until all engines are there or it is clear that they will not be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from socket import gethostname
from typing import Any, NamedTuple, Protocol

from hpcremote.errors import (
    ClusterNotFound,
    ConnectionFileError,
    HPCRemoteError,
    LaunchError,
    NotConnected,
    Refused,
)
from hpcremote.launch.adding import Adding
from hpcremote.launch.startup import Startup

#: The phases of an engine, in the order that it goes through them. (Before come a job's.)
PHASES = ("launch", "MPI_Init", "register")
#: A failed engine's job is given this long to say more in its log.
_LAST_WORDS = 1.0
_LOOK_AGAIN = 0.01
_ASK_AGAIN = 0.05


class Progress(NamedTuple):
    """How far a start is: *done* of *total* engines are through *phase* (launch, MPI_Init, register).

    Of engines that are in a batch system's job the phases before are submitted, queued and started;
    ``detail`` has then which job it is, why it waits, when it is expected to start, or on which hosts.
    """

    phase: str
    done: int
    total: int
    seconds: float
    detail: str = ""


class Controller(Protocol):
    """What is needed of a connection to the controller (``client.link.Link``)."""

    @property
    def engines(self) -> Mapping[int, Any]:
        """The engines that are there."""

    def query(self, what: str, timeout: float = ...) -> Any:
        """Ask the controller."""

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until ``done()``."""

    def close(self) -> None:
        """Close the connection."""


class Watch:
    """Watches one start.

    Args:
        begun: the processes.
        connect: returns a connection to the controller that has just written its file.
        tell: is told of each progress.
        given_up: set from outside to end the start.
    """

    def __init__(
        self,
        begun: Startup | Adding,
        connect: Callable[[], Controller],
        tell: Callable[[Progress], None],
        given_up: threading.Event,
    ) -> None:
        self._begun = begun
        self._connect = connect
        self._tell = tell
        self._given_up = given_up
        self._began = self._clock = time.monotonic()
        self._seen = Progress("launch", -1, begun.n, 0.0)
        self._counts: tuple[int, ...] = (0, 0, 0)

    def run(self) -> None:
        """Return when all engines are registered.

        Raises:
            LaunchError: they will not be, and why.
        """
        controller: Controller | None = None
        try:
            while True:
                if controller is None and self._begun.listens():
                    controller = self._reach()
                if controller is not None and self._look(controller):
                    return
                self._check(controller)
                self._pause(controller)
        except (NotConnected, ClusterNotFound, ConnectionFileError, TimeoutError) as error:
            raise self._trouble_soon() or self._begun.failure(str(error)) from error
        finally:
            if controller is not None:
                controller.close()

    def _reach(self) -> Controller:
        """Connect; where nothing gets through (to a controller in the job), say what to set."""
        try:
            return self._connect()
        except Refused:
            raise
        except NotConnected as error:
            raise NotConnected(
                f"{error}\nSet `interface:` in profile {self._begun.profile.name!r} to a name or address of "
                f"the controller's host that {gethostname()} can reach"
            ) from error

    def _pause(self, controller: Controller | None) -> None:
        if controller is None:
            self._given_up.wait(_LOOK_AGAIN)
        else:
            here = len(controller.engines)
            controller.wait(lambda: len(controller.engines) != here, _ASK_AGAIN)

    def _look(self, controller: Controller) -> bool:
        """Tell how far it is; return whether all are there."""
        info = controller.query("info")  # first: who registers meanwhile is counted twice, and not missed
        registered = self._registered(controller)
        if registered >= self._begun.n:
            self._report((self._begun.n,) * 3)
            return True
        if failed := self._new(info["failed"]):
            raise self._failed(failed)
        self._report(reached(info["starting"], registered))
        return False

    def _registered(self, controller: Controller) -> int:
        """Return how many of these engines are there: those of other sets may come and go meanwhile."""
        if len(controller.engines) < self._begun.n:
            return 0  # a set comes as a whole
        marks = controller.query("marks")
        return sum(marks.get(one.set_id) == self._begun.mark for one in controller.engines.values())

    def _report(self, counts: tuple[int, ...]) -> None:
        total = self._begun.n
        self._counts = counts = tuple(min(count, total) for count in counts)
        if not any(counts) and self._begun.standing() is not None:
            return  # it stands in the queue, and that is told
        at = next((i for i, count in enumerate(counts) if count < total), len(PHASES) - 1)
        self._say(PHASES[at], counts[at])

    def _say(self, phase: str, done: int, detail: str = "") -> None:
        now = Progress(phase, done, self._begun.n, time.monotonic() - self._began, detail)
        if (now.phase, now.done, now.detail) != (self._seen.phase, self._seen.done, self._seen.detail):
            self._seen = now
            self._tell(now)

    def _check(self, controller: Controller | None) -> None:
        if self._given_up.is_set():
            raise LaunchError("the start was given up")
        if (trouble := self._begun.trouble()) is not None:
            raise self._better(controller, trouble)
        standing = self._begun.standing()
        if standing is not None and not any(self._counts):
            self._say(standing.phase, 0, standing.detail)
            if self._begun.waiting:
                self._clock = time.monotonic()
        limit = self._begun.profile.start_timeout
        if time.monotonic() - self._clock > limit:
            raise self._begun.failure(
                f"not ready within {limit:g} s (start_timeout): {self._how_far(controller is not None)}"
            )

    def _how_far(self, listens: bool) -> str:
        if not listens:
            return "the controller did not write its connection file"
        launched, through, registered = self._counts
        total = self._begun.n
        return (
            f"of {total} engines {launched} came up and reached the controller, {through} got through "
            f"MPI_Init, {registered} registered"
        )

    def _better(self, controller: Controller | None, trouble: LaunchError) -> LaunchError:
        """An engine's own words, if the controller has them, say more than that mpiexec ended."""
        if controller is None:
            return trouble
        try:
            failed = self._new(controller.query("info", 1.0)["failed"])
        except (HPCRemoteError, TimeoutError):
            return trouble
        return self._failed(failed) if failed else trouble

    def _new(self, failed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Leave out what failed before this start."""
        return [row for row in failed if row not in self._begun.known]

    def _failed(self, failed: list[dict[str, Any]]) -> LaunchError:
        self._trouble_soon()
        first = failed[0]
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        who = f"an engine on {first['host']} (pid {first['pid']}){others}"
        what = f"{who} failed in phase {first['phase']}: {first['cause']}"
        lonely = "MPI sees" in str(first["cause"])  # what engine.mpi says when ranks are not one job
        if lonely:
            what = f"the {self._begun.n} ranks came up as lonely ones"
        return self._begun.failure(what, lonely=lonely)

    def _trouble_soon(self) -> LaunchError | None:
        """Give processes that are about to end the time to do so, and to say why in their logs."""
        deadline = time.monotonic() + _LAST_WORDS
        while (trouble := self._begun.trouble()) is None and time.monotonic() < deadline:
            self._given_up.wait(_LOOK_AGAIN)
        return trouble


def reached(starting: Mapping[str, int], registered: int) -> tuple[int, int, int]:
    """Return how many engines came up, are through MPI_Init, are registered."""
    return registered + sum(starting.values()), registered + starting.get("joined", 0), registered
