"""Engines of a job are told to have ended when its scheduler has been asked why."""

from __future__ import annotations

import pytest

from hpcremote.controller.events import Arrived, End, Inquire, Inquired, Lost, Opened, Relaunch, Send, Tick
from hpcremote.controller.inquests import AT_ITS_END, FRESH, PATIENCE
from hpcremote.controller.machine import Controller
from hpcremote.controller.roster import BY_LAUNCHER, BY_SCHEDULER, CONTROLLER_ALONE, CONTROLLER_BY_SCHEDULER
from hpcremote.wire import messages as m

WORDS = "job 7 (slurm) has ended: it was cancelled"


def member(rank: int, uid: str) -> m.Member:
    return m.Member(uid, rank, "node1", 100 + rank, rank, "3.11", "1", "MPICH", "0")


def controller_with(
    job: str, uids: tuple[str, ...] = ("a", "b"), set_id: str = "s", left: float = -1.0
) -> Controller:
    controller = Controller("c", "1", "head", 1)
    client = m.Hello("u", m.PROTOCOL, "1", "head", 2, "3.11")
    controller.handle(Opened("client", "client", True), 0.0)
    controller.handle(Arrived("client", client, ()), 0.0)
    come(controller, job, uids, set_id, left=left)
    return controller


def come(
    controller: Controller, job: str, uids: tuple[str, ...], set_id: str, now: float = 0.0, left: float = -1.0
) -> list[int]:
    for rank, uid in enumerate(uids):
        controller.handle(Opened(uid, "engine", False), now)
        controller.handle(Arrived(uid, m.Phase(uid, "node1", 100 + rank, "MPI_Init"), ()), now)
        controller.handle(Arrived(uid, m.Join(uid, set_id, rank, m.PROTOCOL, "1"), ()), now)
    members = [member(rank, uid) for rank, uid in enumerate(uids)]
    register = m.Register(set_id, len(uids), members, "mark", job_key=job, left=left)
    sent = [
        one.message for one in controller.handle(Arrived(uids[0], register, ()), now) if type(one) is Send
    ]
    return [message.engine for message in sent if isinstance(message, m.Joined)]


def went(actions: list[object]) -> list[m.Gone]:
    sent = [action.message for action in actions if isinstance(action, Send)]
    return [gone for message in sent if isinstance(message, m.Engines) for gone in message.went]


def test_engines_of_no_job_go_at_once() -> None:
    controller = controller_with("")
    assert [gone.id for gone in went(controller.handle(Lost("a", "killed"), 1.0))] == [0]


def test_engines_of_a_job_go_with_what_the_scheduler_says() -> None:
    controller = controller_with("job")
    first = controller.handle(Lost("a", "terminated by SIGTERM"), 1.0)
    assert Inquire("job") in first
    assert went(first) == []
    second = controller.handle(Lost("b", "terminated by SIGTERM"), 1.1)
    assert went(second) == []
    assert Inquire("job") not in second
    told = went(controller.handle(Inquired("job", WORDS), 1.5))
    assert [(gone.id, gone.cause) for gone in told] == [
        (0, f"terminated by SIGTERM; {WORDS}"),
        (1, f"terminated by SIGTERM; {WORDS}"),
    ]


@pytest.mark.parametrize(("first", "culprit"), [("1", 1), ("101@node1", 1), ("102@node1.example.org", 2)])
def test_the_one_that_ended_first_is_named_in_the_ends_of_the_others(first: str, culprit: int) -> None:
    """As what started them has written it: in which order the news of their ends came tells nothing."""
    ended = "job 7 (slurm) has ended: exit code 255"
    controller = controller_with("job", ("a", "b", "c"))
    for uid in "abc":
        controller.handle(Lost(uid, "killed"), 1.0)
    told = went(controller.handle(Inquired("job", ended, first), 1.5))
    assert {gone.id: gone.cause for gone in told} == {
        number: f"killed; {ended}"
        if number == culprit
        else f"killed, after engine {culprit} of the same MPI job: killed; {ended}"
        for number in range(3)
    }
    assert told[0].id == culprit


@pytest.mark.parametrize("first", ["", "7", "999@node1", "101@node2"])
def test_where_it_is_not_known_who_ended_first_nobody_is_blamed(first: str) -> None:
    controller = controller_with("job")
    for uid in "ab":
        controller.handle(Lost(uid, "killed"), 1.0)
    assert {gone.cause for gone in went(controller.handle(Inquired("job", "", first), 1.5))} == {"killed"}


def ended(actions: list[object]) -> bool:
    return any(isinstance(action, End) for action in actions)


def test_ranks_of_the_controllers_job_go_as_they_ended_and_then_the_cluster_does() -> None:
    """The job's script says at once that they have ended, while their own ends are being looked into."""
    controller = controller_with("job")
    for uid in "ab":
        controller.handle(Lost(uid, "killed"), 1.0)
    assert went(controller.told_to_end(CONTROLLER_ALONE, 1.0, ranks_ended=True)) == []
    assert not ended(controller.handle(Tick(), 1.6))
    actions = controller.handle(Inquired("job", "", "1"), 2.0)
    assert [gone.cause for gone in went(actions)] == [
        "killed", "killed, after engine 1 of the same MPI job: killed"
    ]  # fmt: skip
    assert ended(actions) or ended(controller.handle(Tick(), 2.1))


def test_ranks_of_the_controllers_job_that_have_not_gone_are_told_to() -> None:
    controller = controller_with("job")
    assert controller.told_to_end(CONTROLLER_ALONE, 1.0, ranks_ended=True) == []
    due = controller.deadline()
    assert due is not None and 1.0 < due < 2.0
    stops = [one.message for one in controller.handle(Tick(), due) if isinstance(one, Send)]
    assert m.Stop(CONTROLLER_ALONE) in stops


def test_how_ranks_of_the_controllers_job_ended_is_not_waited_for_for_ever() -> None:
    controller = controller_with("job")
    controller.handle(Lost("a", "killed"), 1.0)
    controller.told_to_end(CONTROLLER_ALONE, 1.0, ranks_ended=True)
    actions = controller.handle(Tick(), 1.1 + PATIENCE)
    assert [gone.cause for gone in went(actions) if gone.id == 0] == ["killed"]
    assert m.Stop(CONTROLLER_ALONE) in [one.message for one in actions if isinstance(one, Send)]


def test_of_engines_that_are_killed_in_a_job_none_is_called_the_first_by_when_it_was_seen_to_end() -> None:
    """Also where it is put in other words."""
    controller = controller_with("job")
    controller.handle(Lost("a", "killed by SIGKILL"), 1.0)
    controller.handle(Lost("b", "killed by SIGKILL (out of memory, or somebody's kill -9)"), 1.1)
    told = went(controller.handle(Inquired("job", WORDS), 1.5))
    assert not any("after engine" in gone.cause for gone in told)


def test_an_engine_that_goes_at_the_end_of_its_job_went_with_it() -> None:
    """Also if its scheduler has not noticed yet."""
    controller = controller_with("job", left=30.0)
    assert Inquire("job", over=False) in controller.handle(Lost("a", "killed"), 30.0 - AT_ITS_END)
    controller = controller_with("job", left=30.0)
    assert Inquire("job", over=True) in controller.handle(Lost("a", "killed"), 30.1 - AT_ITS_END)


def test_a_scheduler_that_does_not_answer_is_not_waited_for_longer() -> None:
    controller = controller_with("job")
    controller.handle(Lost("a", "killed"), 1.0)
    assert controller.deadline() == 1.0 + PATIENCE
    assert [gone.cause for gone in went(controller.handle(Tick(), 1.0 + PATIENCE))] == ["killed"]


def test_an_answer_is_good_for_engines_that_go_after_it_and_then_it_is_asked_again() -> None:
    controller = controller_with("job")
    controller.handle(Lost("a", "killed"), 1.0)
    controller.handle(Inquired("job", ""), 2.0)
    assert [gone.id for gone in went(controller.handle(Lost("b", "killed"), 3.0))] == [1]
    come(controller, "job", ("c", "d"), "t", 20.0)
    assert Inquire("job") in controller.handle(Lost("c", "killed"), 20.0 + FRESH)


def test_an_engine_that_goes_late_has_the_end_of_the_run_that_it_was_in() -> None:
    """Meanwhile the job has begun anew."""
    controller = controller_with("job")
    controller.handle(Lost("a", "killed"), 1.0)
    back = "job 7 (slurm) was put back into the queue (queued: BeginTime): a node failed"
    controller.handle(Inquired("job", back), 2.0)
    late = 2.0 + FRESH
    assert Inquire("job") in controller.handle(Lost("b", "killed"), late)
    assert [gone.cause for gone in went(controller.handle(Inquired("job", ""), late))] == [f"killed; {back}"]


def test_ranks_that_the_scheduler_has_forgotten_are_told_to_end() -> None:
    controller = controller_with("job")
    controller.handle(Lost("a", "killed"), 1.0)
    actions = controller.handle(Inquired("job", WORDS), 2.0)
    stops = [
        action.peer for action in actions if isinstance(action, Send) and isinstance(action.message, m.Stop)
    ]
    assert stops == ["b"]


def test_a_job_that_goes_on_keeps_its_other_engines() -> None:
    controller = controller_with("job")
    controller.handle(Lost("a", "killed"), 1.0)
    actions = controller.handle(Inquired("job", ""), 2.0)
    assert not [
        action for action in actions if isinstance(action, Send) and isinstance(action.message, m.Stop)
    ]


def test_a_job_that_is_queued_again_brings_its_engines_back_under_their_ids() -> None:
    controller = controller_with("other", ("x",), "o")
    assert come(controller, "job", ("a", "b"), "s") == [1, 2]
    for peer in ("a", "b"):
        controller.handle(Lost(peer, "killed"), 1.0)
    controller.handle(Inquired("job", "job 7 (slurm) was put back into the queue"), 2.0)
    assert come(controller, "job", ("c", "d"), "t", 30.0) == [1, 2]


def test_mates_are_told_once_of_a_rank_that_ended_unasked() -> None:
    controller = controller_with("", ("a", "b", "c"))
    told = [one.peer for one in controller.handle(Lost("a", "killed"), 1.0) if bereft(one)]
    assert told == ["b", "c"]
    assert not any(map(bereft, controller.handle(Lost("b", "killed"), 1.0)))


def test_mates_are_not_told_of_a_rank_that_was_to_end() -> None:
    controller = controller_with("", ("a", "b"))
    controller.handle(Arrived("a", m.Leaving("stopped: a client asked for it"), ()), 1.0)
    assert not any(map(bereft, controller.handle(Lost("a"), 1.0)))


def test_mates_are_not_told_of_a_rank_that_may_be_back() -> None:
    controller = controller_with("", ("a", "b", "c"))
    assert not any(map(bereft, controller.handle(Lost("a"), 1.0)))
    assert [one.peer for one in controller.handle(Lost("b", "killed"), 2.0) if bereft(one)] == ["c"]


def bereft(action: object) -> bool:
    return isinstance(action, Send) and isinstance(action.message, m.Bereft)


def test_a_restart_knows_the_job() -> None:
    controller = controller_with("job")
    actions = controller.handle(Arrived("client", m.Restart(1, "s", 60.0), ()), 1.0)
    assert [action.job for action in actions if isinstance(action, Relaunch)] == ["job"]


def test_a_call_that_was_interrupted_because_the_scheduler_ends_the_engine_is_lost_with_it() -> None:
    controller = controller_with("job")
    call = m.Call(1, [0, 1], "apply", b"", [m.Part(b"x", [1])])
    sent = controller.handle(Arrived("client", call, ()), 1.0)
    (seq,) = {one.message.seq for one in sent if type(one) is Send and isinstance(one.message, m.Run)}
    engine = controller.roster.engines[0]
    engine.leaving = f"{BY_SCHEDULER} (SIGTERM)"
    assert not results(controller.handle(Arrived("a", m.Done(seq, "error", m.Part(b"x", [1])), ()), 2.0))
    controller.handle(Lost("a"), 3.0)
    (lost,) = results(controller.handle(Inquired("job", WORDS), 3.5))
    assert (lost.engine, lost.status) == (0, "lost")
    assert WORDS in lost.err


def test_so_is_one_that_was_interrupted_because_the_scheduler_ends_the_controller() -> None:
    controller = controller_with("job")
    call = m.Call(1, [0, 1], "apply", b"", [m.Part(b"x", [1])])
    sent = controller.handle(Arrived("client", call, ()), 1.0)
    (seq,) = {one.message.seq for one in sent if type(one) is Send and isinstance(one.message, m.Run)}
    controller.roster.engines[0].leaving = f"{CONTROLLER_BY_SCHEDULER} (SIGTERM)"
    assert not results(controller.handle(Arrived("a", m.Done(seq, "error", m.Part(b"x", [1])), ()), 2.0))
    (lost,) = results(controller.handle(Lost("a"), 3.0))
    assert (lost.engine, lost.status) == (0, "lost")
    assert CONTROLLER_BY_SCHEDULER in lost.err


@pytest.mark.parametrize("known", [WORDS, ""])
def test_an_engine_that_its_launcher_has_ended_may_have_been_so_for_the_scheduler(known: str) -> None:
    """Also where a rank had died before: its launcher goes on then, and is told by the scheduler alone."""
    controller = controller_with("job")
    controller.roster.engines[0].leaving = f"{BY_LAUNCHER} (SIGTERM)"
    assert not went(controller.handle(Lost("a"), 1.0))
    (lost,) = went(controller.handle(Inquired("job", known), 1.5))
    assert lost.cause == "; ".join(filter(None, [f"{BY_LAUNCHER} (SIGTERM)", known]))


def results(actions: list[object]) -> list[m.Result]:
    sent = [action.message for action in actions if isinstance(action, Send)]
    return [message for message in sent if isinstance(message, m.Result)]
