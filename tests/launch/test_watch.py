"""How far a start is, from what the controller says."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from hpcremote.errors import LaunchError
from hpcremote.launch import watch
from hpcremote.launch.batch.submission import Standing
from hpcremote.launch.watch import Watch, reached


@pytest.mark.parametrize(
    ("registered", "starting", "counts"),
    [
        (0, {}, (0, 0, 0)),
        (0, {"started": 4}, (4, 0, 0)),
        (0, {"MPI_Init": 3}, (3, 0, 0)),
        (0, {"started": 1, "MPI_Init": 2, "joined": 1}, (4, 1, 0)),
        (2, {"MPI_Init": 1, "joined": 1}, (4, 3, 2)),
        (4, {"started": 0, "MPI_Init": 0, "joined": 0}, (4, 4, 4)),
    ],
)
def test_reached(registered, starting, counts):
    assert reached(starting, registered) == counts


class Controller:
    """Engines of set "a", whose processes carry m.1, and of "b" (m.2); they change as the watch looks."""

    def __init__(self, *moments: str) -> None:
        self._moments = list(moments)

    @property
    def engines(self) -> dict[int, Any]:
        return {number: SimpleNamespace(set_id=name) for number, name in enumerate(self._moments[0])}

    def query(self, what: str, timeout: float = 1.0) -> Any:
        if what == "marks":
            return {"a": "m.1", "b": "m.2", "A": "m.1"}
        return {"failed": [], "starting": {}}

    def wait(self, done: Any, timeout: float | None = None) -> bool:
        self._moments.pop(0)
        return True

    def close(self) -> None:
        pass


def begun() -> Any:
    return SimpleNamespace(
        n=2, mark="m.2", known=(), listens=lambda: True, standing=lambda: None, trouble=lambda: None,
        profile=SimpleNamespace(start_timeout=60.0),
    )  # fmt: skip


class Sudden(Controller):
    """Its engines register while it is asked for the second time how far they are."""

    def __init__(self) -> None:
        super().__init__("", "")
        self._starting = [{"MPI_Init": 2}, {}]

    def query(self, what: str, timeout: float = 1.0) -> Any:
        if what != "info":
            return super().query(what, timeout)
        starting = self._starting.pop(0)
        if not starting:
            self._moments = ["bb"]
        return {"failed": [], "starting": starting}


def test_progress_does_not_go_back():
    told: list[Any] = []
    Watch(begun(), Sudden, told.append, threading.Event()).run()
    assert [(one.phase, one.done) for one in told] == [("MPI_Init", 0), ("register", 2)]


@pytest.mark.parametrize(
    "moments",
    [
        ["aa", "a", "", "bb"],  # others end meanwhile
        ["", "AA", "AAbb"],  # others come back meanwhile
        ["aabb"],
    ],
)
def test_only_engines_of_the_set_that_starts_count(moments):
    told: list[Any] = []
    controller = Controller(*moments)
    Watch(begun(), lambda: controller, told.append, threading.Event()).run()
    assert [one.set_id for one in controller.engines.values()].count("b") == 2
    assert (told[-1].phase, told[-1].done) == ("register", 2)


class Hours:
    """An event that is never set; each wait for it takes ten minutes of a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def is_set(self) -> bool:
        return False

    def wait(self, _timeout: float) -> None:
        self.now += 600.0


def test_time_in_the_queue_is_no_time_of_the_start(monkeypatch):
    hours = Hours()
    monkeypatch.setattr(watch, "time", hours)

    class Queued:
        n, known, profile = 2, (), SimpleNamespace(start_timeout=60.0)

        @property
        def waiting(self) -> bool:
            return hours.now < 36_000

        def standing(self) -> Standing:
            return Standing("queued", "job 7 (slurm) queued: Resources")

        def listens(self) -> bool:
            return False

        def trouble(self) -> None: ...

        def failure(self, text: str) -> LaunchError:
            return LaunchError(text)

    told: list[Any] = []
    with pytest.raises(LaunchError, match="not ready within 60 s"):
        Watch(Queued(), Controller, told.append, hours).run()
    assert hours.now == 36_000  # seen to wait last ten minutes before
    assert [(one.phase, one.detail) for one in told] == [("queued", "job 7 (slurm) queued: Resources")]
