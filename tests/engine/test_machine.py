"""What an engine does next, without a socket or a thread."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hpcremote.engine.machine import Engine, Job
from hpcremote.wire import messages as m


def run(seq: int, digest: bytes = b"") -> m.Run:
    return m.Run(seq, "apply", digest, m.Part(), True, [0])


def engine() -> tuple[Engine, dict[bytes, bytes]]:
    store: dict[bytes, bytes] = {}
    return Engine(store.__contains__, store.__setitem__), store


def take(machine: Engine) -> int:
    job = machine.next()
    assert isinstance(job, Job)
    machine.finished()
    return job.run.seq


@given(st.lists(st.sampled_from(["run", "take", "drop"]), max_size=60))
def test_runs_are_taken_in_order_and_each_is_taken_or_dropped_once(steps: list[str]) -> None:
    machine, _ = engine()
    seq = 0
    taken: list[int] = []
    dropped: list[int] = []
    for step in steps:
        if step == "run":
            seq += 1
            machine.handle(run(seq), ())
        elif step == "take" and machine.queued:
            taken.append(take(machine))
        elif step == "drop":
            answers = machine.handle(m.Drop([seq, 1]), ())
            dropped += [a.seq for a in answers if isinstance(a, m.Done) and a.status == "aborted"]
    while machine.queued:
        taken.append(take(machine))
    assert taken == sorted(taken)
    assert sorted(taken + dropped) == list(range(1, seq + 1))


def test_a_missing_definition_is_asked_for_once_and_holds_up_what_follows() -> None:
    machine, store = engine()
    machine.handle(run(1, b"f"), ())
    machine.handle(run(2), ())
    assert machine.ready()
    assert machine.next() == m.Lacking(1, b"f")
    assert not machine.ready()
    assert machine.next() is None
    machine.handle(m.Given(b"f", b"code"), ())
    assert store == {b"f": b"code"}
    assert machine.ready()
    assert [take(machine), take(machine)] == [1, 2]


def test_a_definition_that_nobody_has_fails_only_its_run() -> None:
    machine, _ = engine()
    machine.handle(run(1, b"f"), ())
    machine.handle(run(2), ())
    assert isinstance(machine.next(), m.Lacking)
    machine.handle(m.Given(b"f", b""), ())
    job = machine.next()
    assert isinstance(job, Job)
    assert job.undefined
    machine.finished()
    assert take(machine) == 2


def test_dropping_the_run_that_waits_for_a_definition_frees_the_queue() -> None:
    machine, _ = engine()
    machine.handle(run(1, b"f"), ())
    machine.handle(run(2), ())
    assert isinstance(machine.next(), m.Lacking)
    (done,) = machine.handle(m.Drop([1]), ())
    assert isinstance(done, m.Done)
    assert (done.seq, done.status) == (1, "aborted")
    assert take(machine) == 2


def test_a_running_job_is_not_dropped() -> None:
    machine, _ = engine()
    machine.handle(run(1), ())
    assert isinstance(machine.next(), Job)
    assert machine.handle(m.Drop([1]), ()) == []
    assert machine.running is not None


def test_stop_and_refusal_wake_the_engine() -> None:
    machine, _ = engine()
    assert not machine.ready()
    machine.handle(m.Stop("enough"), ())
    assert machine.ready()
    assert machine.stopping == "enough"
    machine, _ = engine()
    machine.handle(m.Refused("no"), ())
    assert machine.ready()
