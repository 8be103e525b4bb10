"""Engine sets: which ids they get, how they are restarted, and what becomes of one that is never complete."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest

from hpcremote.controller.events import Back, Lost, Opened, Prepared, Relaunch, Relaunched
from hpcremote.controller.relaunch import Relaunches
from hpcremote.errors import LaunchError
from hpcremote.wire import messages as m
from tests.controller.test_machine import Bench, call

MARK = "f" * 32


@pytest.fixture
def bench() -> Bench:
    return Bench()


def join(
    bench: Bench, set_id: str, size: int, *, replaces: str = "", mark: str = MARK, host: str = "here"
) -> list[str]:
    """Let a whole set come, and return its peers."""
    names = [f"{set_id}{rank}" for rank in range(size)]
    for rank, name in enumerate(names):
        bench.feed(Opened(name, "engine", True))
        bench.say(name, m.Phase(name, host, 100 + rank, "MPI_Init"))
        bench.say(name, m.Join(name, set_id, rank, m.PROTOCOL, "0"))
    members = [m.Member(name, rank, host, 100 + rank, mpi="MPICH") for rank, name in enumerate(names)]
    bench.say(names[0], m.Register(set_id, size, members, mark, replaces))
    return names


def lose(bench: Bench, names: list[str]) -> None:
    for name in names:
        bench.feed(Lost(name, "killed by SIGKILL"))


def came(bench: Bench, client: str) -> list[int]:
    return [info.id for info in bench.got(client, m.Engines)[-1].came]  # type: ignore[attr-defined]


def orders(bench: Bench) -> list[object]:
    return [action for action in bench.other if isinstance(action, (Relaunch, Back))]


def answers(bench: Bench, client: str) -> list[tuple[int, str, str]]:
    return [(a.request, a.data, a.error) for a in bench.got(client, m.Answer)]  # type: ignore[attr-defined]


# ---------------------------------------------------------------- whose processes they are


def test_a_set_is_known_by_its_own_mark_and_not_by_that_of_one_that_had_its_ids(bench: Bench) -> None:
    client = bench.client("c")
    for number in (1, 2, 3):
        names = join(bench, f"s{number}", 2, mark=f"{MARK}.{number}")
        assert came(bench, client) == [0, 1]
        if number < 3:
            lose(bench, names)
    bench.say(client, m.Query(1, "marks"))
    ((_, data, _),) = answers(bench, client)
    assert json.loads(data) == {f"s{number}": f"{MARK}.{number}" for number in (1, 2, 3)}


# ---------------------------------------------------------------- restarting


def test_a_set_is_restarted_under_its_ids(bench: Bench) -> None:
    client = bench.client("c")
    other = join(bench, "a", 2)
    old = join(bench, "b", 3)
    assert came(bench, client) == [2, 3, 4]
    bench.say(client, call(1, [3]))
    bench.say(client, m.Restart(9, "b", 30.0))
    assert bench.got("b1", m.Stop) == []  # not before all is ready for it
    bench.feed(Prepared("b"))
    assert [stop.reason for stop in bench.got("b1", m.Stop)] == ["its set was restarted"]  # type: ignore[attr-defined]
    assert orders(bench) == [Relaunch("b", MARK, 3, (("here", 100), ("here", 101), ("here", 102)), 30.0)]
    assert bench.got(other[0], m.Stop) == []
    bench.say("b1", m.Leaving("stopped: its set was restarted"))
    lose(bench, old)
    (lost,) = bench.got(client, m.Result)
    assert (lost.status, lost.err) == ("lost", "its set was restarted")  # type: ignore[attr-defined]
    join(bench, "new", 3, replaces="b")
    assert came(bench, client) == [2, 3, 4]
    assert orders(bench)[1:] == [Back("b")]
    assert answers(bench, client) == []
    bench.feed(Relaunched("b"))
    assert answers(bench, client) == [(9, "true", "")]


def test_the_new_set_waits_until_the_old_one_is_seen_to_be_gone(bench: Bench) -> None:
    client = bench.client("c")
    old = join(bench, "b", 2)
    bench.say(client, m.Restart(9, "b"))
    join(bench, "new", 2, replaces="b")
    assert len(bench.got(client, m.Engines)) == 1
    lose(bench, old)
    assert came(bench, client) == [0, 1]
    assert bench.got("new0", m.Joined)


def test_who_asks_meanwhile_gets_the_same_answer(bench: Bench) -> None:
    bench.client("c")
    bench.client("d")
    join(bench, "b", 2)
    bench.say("c", m.Restart(9, "b"))
    bench.say("d", m.Restart(4, "b"))
    assert len(orders(bench)) == 1
    bench.feed(Relaunched("b", "there is no mpiexec"))
    assert answers(bench, "c") == [(9, "", "there is no mpiexec")]
    assert answers(bench, "d") == [(4, "", "there is no mpiexec")]
    bench.say("c", m.Restart(10, "b"))  # and it can be tried again
    assert len(orders(bench)) == 2


def test_ids_are_kept_while_their_set_is_restarted(bench: Bench) -> None:
    client = bench.client("c")
    old = join(bench, "b", 2)
    bench.say(client, m.Restart(9, "b"))
    lose(bench, old)
    join(bench, "stranger", 2, mark="")
    assert came(bench, client) == [2, 3]
    join(bench, "new", 2, replaces="b")
    assert came(bench, client) == [0, 1]


def test_a_dead_set_is_restarted(bench: Bench) -> None:
    old = join(bench, "b", 2)
    lose(bench, old)
    client = bench.client("c")
    bench.say(client, m.Query(1, "ended sets"))
    (row,) = json.loads(answers(bench, client)[0][1])
    assert (row["set"], row["base"], row["size"], row["hosts"]) == ("b", 0, 2, ["here"])
    assert row["cause"] == "engine 0: killed by SIGKILL"
    bench.say(client, m.Restart(2, "b"))
    join(bench, "new", 2, replaces="b")
    assert came(bench, client) == [0, 1]
    bench.say(client, m.Query(3, "ended sets"))
    assert answers(bench, client)[-1] == (3, "[]", "")


def test_what_cannot_be_restarted(bench: Bench) -> None:
    client = bench.client("c")
    join(bench, "b", 2, mark="")
    bench.say(client, m.Restart(1, "b"))
    assert "engines 0 to 1 was started by hand" in answers(bench, client)[-1][2]
    bench.say(client, m.Restart(2, "nonsense"))
    assert "no such engine set" in answers(bench, client)[-1][2]
    lose(bench, join(bench, "d", 2))
    join(bench, "e", 1)
    bench.say(client, m.Restart(3, "d"))
    assert "its ids went to another set" in answers(bench, client)[-1][2]
    assert orders(bench) == []
    bench.take(bench.machine.end("enough", 0.0))
    bench.say(client, m.Restart(4, "b"))
    assert "ending" in answers(bench, client)[-1][2]


# ---------------------------------------------------------------- ids


def test_a_set_like_one_that_ended_gets_its_ids(bench: Bench) -> None:
    client = bench.client("c")
    first = join(bench, "a", 2, mark="")
    join(bench, "b", 2, mark="")
    lose(bench, first)
    join(bench, "elsewhere", 2, mark="", host="there")
    assert came(bench, client) == [4, 5]
    join(bench, "larger", 3, mark="")
    assert came(bench, client) == [6, 7, 8]
    join(bench, "again", 2, mark="")
    assert came(bench, client) == [0, 1]


def test_ids_are_not_given_away_while_a_process_may_be_back(bench: Bench) -> None:
    """A connection from elsewhere broke, and nobody knows more: its engine may connect again."""
    client = bench.client("c")
    bench.engines(2, "a", local=False)
    bench.engines(2, "b", local=False)
    for name in ("a0", "a1"):
        bench.feed(Lost(name))
    bench.engines(2, "like", local=False)
    assert came(bench, client) == [4, 5]


# ---------------------------------------------------------------- sets that are never complete


def start(bench: Bench, size: int) -> tuple[list[str], m.Register]:
    names = [f"s{rank}" for rank in range(size)]
    for rank, name in enumerate(names):
        bench.feed(Opened(name, "engine", True))
        bench.say(name, m.Phase(name, "here", 100 + rank, "MPI_Init"))
    return names, m.Register(
        "s", size, [m.Member(n, r, "here", 100 + r, mpi="MPICH") for r, n in enumerate(names)]
    )


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("registered", [True, False])
def test_a_rank_lost_before_the_set_is_complete_ends_the_others(
    bench: Bench, *, joined: bool, registered: bool
) -> None:
    names, register = start(bench, 3)
    bench.say("s0", m.Join("s0", "s", 0, m.PROTOCOL, "0"))
    if joined:
        bench.say("s1", m.Join("s1", "s", 1, m.PROTOCOL, "0"))
    if registered:
        bench.say("s0", register)
    bench.feed(Lost("s1", "killed by SIGKILL"))
    if not registered:
        bench.say("s0", register)
    bench.say("s2", m.Join("s2", "s", 2, m.PROTOCOL, "0"))
    for name in (names[0], names[2]):
        reasons = {refused.reason for refused in bench.got(name, m.Refused)}  # type: ignore[attr-defined]
        assert len(reasons) == 1
        (reason,) = reasons
        assert "rank 1 of its MPI job (pid 101 on here) ended before all 3 ranks" in reason
        assert "killed by SIGKILL" in reason
    assert "pid 101" in bench.logged()


def test_a_broken_connection_does_not_end_the_others(bench: Bench) -> None:
    """A rank elsewhere may come back over another connection."""
    names = ["s0", "s1"]
    for rank, name in enumerate(names):
        bench.feed(Opened(name, "engine", False))
        bench.say(name, m.Phase(name, "there", 100 + rank, "MPI_Init"))
        bench.say(name, m.Join(name, "s", rank, m.PROTOCOL, "0"))
    bench.feed(Lost("s1"))
    bench.say("s0", m.Register("s", 2, [m.Member(n, r, "there", 100 + r) for r, n in enumerate(names)]))
    assert bench.got("s0", m.Refused) == []
    bench.feed(Opened("again", "engine", False))
    bench.say("again", m.Join("s1", "s", 1, m.PROTOCOL, "0"))
    assert bench.got("s0", m.Joined)


# ---------------------------------------------------------------- the threads


def test_restarts_are_done_in_threads() -> None:
    woken = threading.Semaphore(0)

    def relaunch(order: Relaunch, there: threading.Event) -> Callable[[], None]:
        if order.set_id == "worse":
            raise LaunchError("no record")
        if order.set_id == "worst":
            raise KeyError("nobody foresaw this")

        def work() -> None:
            assert there.wait(10)
            if order.set_id == "bad":
                raise LaunchError("no mpiexec")

        return work

    threads = Relaunches(relaunch, woken.release)
    for name in ("good", "bad"):
        threads.start(Relaunch(name, MARK, 1, (), 10.0))
        assert woken.acquire(timeout=10)
    assert threads.news() == [Prepared("good"), Prepared("bad")]
    threads.back(Back("bad"))
    assert woken.acquire(timeout=10)
    assert threads.news() == [Relaunched("bad", "no mpiexec")]
    threads.back(Back("good"))
    assert woken.acquire(timeout=10)
    assert threads.news() == [Relaunched("good")]
    threads.start(Relaunch("worse", MARK, 1, (), 10.0))
    threads.start(Relaunch("worst", MARK, 1, (), 10.0))
    assert threads.news() == [
        Relaunched("worse", "no record"),
        Relaunched("worst", "KeyError: 'nobody foresaw this'"),
    ]


def test_a_controller_that_was_started_by_hand_says_so() -> None:
    woken = threading.Semaphore(0)
    threads = Relaunches(None, woken.release)
    threads.start(Relaunch("s", MARK, 1, (), 10.0))
    assert woken.acquire(timeout=10)
    (ended,) = threads.news()
    assert "started by hand" in ended.error
