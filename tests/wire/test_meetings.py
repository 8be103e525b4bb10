"""What ranks note of their collectives, put together."""

from __future__ import annotations

from typing import Any

from hpcremote.wire.meetings import differing, told
from hpcremote.wire.notes import NOTED, Note, Step, dump, read
from hpcremote.wire.stacks import Frame, Stack

HERE = Stack((Frame("/home/solve.py", 12, "solve"),))


def inside(*steps: tuple[int, str, int | None], comm: str = "COMM_WORLD", line: int = 12) -> Note:
    """A rank that is in the last of these collectives."""
    return Note(steps[-1][1], "/home/solve.py", line, {comm: [Step(*step) for step in steps]}, comm)


def test_a_note_comes_back_as_it_was() -> None:
    note = inside((1, "bcast", 0), (2, "Barrier", None))
    assert read(dump(note)) == note
    many = inside(*((number, "bcast", 0) for number in range(100)))
    assert [step.number for step in read(dump(many)).steps["COMM_WORLD"]] == list(range(100))[-NOTED:]


def test_half_a_note_is_none() -> None:
    text = dump(inside((1, "bcast", 0)))
    assert all(read(text[:end]) == Note() for end in range(len(text)))
    assert read("[1, 2]") == read("{}") == read('["", "", 0, 5]') == Note()


def test_another_collective_is_named() -> None:
    notes = {rank: (inside((7, "allreduce", None)), HERE) for rank in (0, 2, 3)}
    notes[1] = inside((7, "bcast", 0)), HERE
    assert differing(notes) == [
        "rank 1 is in bcast (root 0), ranks 0,2-3 in allreduce: operation 7 of COMM_WORLD differs"
    ]


def test_one_that_is_out_of_it_already_is_named_too() -> None:
    ahead = inside((7, "bcast", 1), (8, "Barrier", None))
    notes = {0: (inside((7, "bcast", 0)), HERE), 1: (ahead, HERE)}
    assert differing(notes) == [
        "rank 0 is in bcast (root 0), rank 1 was in bcast (root 1): operation 7 of COMM_WORLD differs"
    ]


def test_what_nobody_waits_in_and_old_notes_are_not_told() -> None:
    past = inside((7, "bcast", 1), (8, "Barrier", None))
    other = inside((7, "bcast", 0), (8, "Barrier", None))
    assert differing({0: (past, HERE), 1: (other, HERE)}) == []
    elsewhere = inside((8, "allreduce", None), line=99)
    assert differing({0: (elsewhere, HERE), 1: (inside((8, "bcast", 0), line=99), HERE)}) == []
    idle = Stack(doing="waiting for work")
    assert differing({0: (inside((8, "bcast", 1)), idle), 1: (inside((8, "Barrier", None)), HERE)}) == []


def test_ranks_that_wait_for_each_other_on_two_communicators_are_named() -> None:
    world = inside((7, "allreduce", None))
    ours = "comm() of ranks 0,1,2,3"
    notes = dict.fromkeys((0, 2, 3), (world, HERE))
    notes[1] = inside((1, "allreduce", None), comm=ours), HERE
    (said,) = differing(notes)
    assert said == (
        "rank 1 in allreduce of comm() of ranks 0,1,2,3, ranks 0,2-3 in allreduce of COMM_WORLD: "
        "they wait for each other"
    )
    # Neither one that is only ahead, nor one that is no member, is waited for.
    ahead = notes[1][0]._replace(steps={**notes[1][0].steps, "COMM_WORLD": [Step(7, "allreduce", None)]})
    assert differing({**notes, 1: (ahead, HERE)}) == []
    pair = inside((1, "bcast", 0), comm="comm() of ranks 0,2"), HERE
    assert differing({0: pair, 1: (inside((4, "bcast", 0), comm="comm() of ranks 1,3"), HERE)}) == []
    second = {9: (inside((1, "bcast", 0), comm="comm() of ranks 0,1"), HERE), 8: (world, HERE)}
    (said,) = differing(second, "engine", 8)
    assert said.startswith("engine 8 in allreduce of COMM_WORLD, engine 9 in bcast of comm() of ranks 0,1: ")


def test_jobs_have_each_their_own_comm_world() -> None:
    def row(rank: int, note: Note) -> dict[str, Any]:
        return {"rank": rank, "note": dump(note)}

    barrier, bcast = inside((3, "Barrier", None)), inside((3, "bcast", 0))
    rows = {0: row(0, barrier), 1: row(1, barrier), 2: row(0, bcast), 3: row(1, bcast)}
    stacks = dict.fromkeys(rows, HERE)
    assert told(rows, stacks, "engine") == []
    rows[3] = row(1, barrier)
    (said,) = told(rows, stacks, "engine")
    assert said == "engine 2 is in bcast (root 0), engine 3 in Barrier: operation 3 of COMM_WORLD differs"
    assert told({0: {"rank": 0, "note": ""}, 1: rows[1]}, stacks, "engine") == []
