"""What a client says and calls before jobs end."""

from __future__ import annotations

import logging

import pytest

from hpcremote.client.walltime import JobEnding, Walltime
from hpcremote.wire.messages import EngineInfo, TimeLeft
from tests.integration.support import eventually

ENGINES = {
    number: EngineInfo(number, f"uid{number}", "ab"[number // 2], number % 2, 2, "node", 9, True)
    for number in range(4)
}


def told_of(walltime: Walltime) -> list[JobEnding]:
    told: list[JobEnding] = []
    walltime.call(100.0, told.append)
    return told


def test_the_first_end_of_those_that_are_meant() -> None:
    walltime = Walltime(lambda: ENGINES)
    assert walltime.left() is None
    walltime.learn(TimeLeft("a", 500.0))
    walltime.learn(TimeLeft("b", 300.0))
    walltime.learn(TimeLeft("dead", 1.0))
    assert walltime.left() == pytest.approx(300, abs=5)
    assert walltime.left({"a"}) == pytest.approx(500, abs=5)
    walltime.learn(TimeLeft("b", -1.0))
    assert walltime.left({"b"}) is None
    walltime.close()


def test_each_callback_comes_once_for_each_set_and_the_log_says_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    walltime = Walltime(lambda: ENGINES)
    walltime.tell()
    told = told_of(walltime)
    with caplog.at_level(logging.WARNING, logger="hpcremote.client"):
        walltime.learn(TimeLeft("a", 90.0))
        eventually(lambda: told)
        walltime.learn(TimeLeft("a", 89.0))
        walltime.learn(TimeLeft("b", 50_000.0, "its scheduler is about to end it (SIGUSR1)"))
        eventually(lambda: len(told) == 2)
        walltime.close()
    assert [one.engines for one in told] == [[0, 1], [2, 3]]
    assert [line.split(" ends in ")[0] for line in caplog.messages] == [
        "the job of engines 0-1",
        "the job of engines 2-3",
    ]
    assert caplog.messages[1].endswith(": its scheduler is about to end it (SIGUSR1)")


def test_one_that_raises_keeps_no_other_from_being_called(caplog: pytest.LogCaptureFixture) -> None:
    walltime = Walltime(lambda: ENGINES)
    walltime.call(100.0, lambda ending: ending.no_such_thing)
    told = told_of(walltime)
    walltime.learn(TimeLeft("a", 90.0))
    eventually(lambda: told)
    walltime.close()
    assert "a callback of on_walltime failed" in caplog.text
