"""How far a start is, from what the controller says."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

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


@pytest.mark.parametrize(
    "moments",
    [
        ["aa", "a", "", "bb"],  # others end meanwhile
        ["", "AA", "AAbb"],  # others come back meanwhile
        ["aabb"],
    ],
)
def test_only_engines_of_the_set_that_starts_count(moments):
    begun = SimpleNamespace(
        n=2, mark="m.2", known=(), listens=lambda: True, standing=lambda: None, trouble=lambda: None,
        profile=SimpleNamespace(start_timeout=60.0),
    )  # fmt: skip
    told: list[Any] = []
    controller = Controller(*moments)
    Watch(begun, lambda: controller, told.append, threading.Event()).run()
    assert [one.set_id for one in controller.engines.values()].count("b") == 2
    assert (told[-1].phase, told[-1].done) == ("register", 2)
