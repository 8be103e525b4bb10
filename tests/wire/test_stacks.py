from __future__ import annotations

import faulthandler
import sys
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.wire import stacks
from hpcremote.wire.stacks import Frame, Node, Stack, Waiting, merge, mismatches, parse, render, user_stack

PACKAGE = "/site/hpcremote"
STARTED = [
    Frame("<frozen runpy>", 198, "_run_module_as_main"),
    Frame(f"{PACKAGE}/cli/engine.py", 54, "run"),
    Frame(f"{PACKAGE}/engine/main.py", 73, "run"),
]
SERVING = [*STARTED, Frame(f"{PACKAGE}/engine/main.py", 120, "_serve")]
PERFORMING = [
    *SERVING,
    Frame(f"{PACKAGE}/engine/executor.py", 122, "_perform"),
    Frame(f"{PACKAGE}/engine/operations.py", 65, "perform"),
    Frame(f"{PACKAGE}/engine/operations.py", 86, "_apply"),
]
RENEWING = [("executor", "run"), ("comm/side", "renew_now"), ("comm/watch", "wait"), ("comm/watch", "until")]
SOLVE = Frame("/home/u/solve.py", 12, "solve")


def written(frames: list[Frame] | tuple[Frame, ...], heading: str = "Stack") -> str:
    """What faulthandler writes of a stack that is given outermost call first."""
    rows = [f'  File "{escaped(f.file)}", line {f.line} in {escaped(f.function)}\n' for f in reversed(frames)]
    return "".join([f"{heading} (most recent call first):\n", *rows])


def escaped(text: str) -> str:
    def one(character: str) -> str:
        code = ord(character)
        if " " <= character <= "~":
            return character
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"

    return "".join(map(one, text))


# Backslashes are not escaped by faulthandler, so a name that looks like an escape cannot be told from one.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\\"), min_size=1, max_size=12)
FRAMES = st.builds(Frame, NAMES, st.integers(1, 10**6), NAMES)
SMALL = st.builds(Frame, st.sampled_from(["a.py", "b.py"]), st.integers(1, 2), st.sampled_from("fg"))
STACKS = st.builds(Stack, st.lists(SMALL, max_size=5).map(tuple), st.sampled_from(["", "in Allreduce"]))


@given(st.lists(FRAMES, min_size=1, max_size=8))
def test_what_is_written_is_read(frames):
    (thread,) = parse(written(frames))
    assert thread.frames == tuple(frames)
    assert not thread.cut


@given(st.lists(st.lists(FRAMES, max_size=4), max_size=4))
def test_several_threads(threads):
    text = "\n".join(written(frames, f"Thread 0x{i:016x}") for i, frames in enumerate(threads))
    assert [list(thread.frames) for thread in parse(text)] == threads


@given(st.lists(FRAMES, min_size=1, max_size=6), st.data())
def test_what_is_cut_off_is_read_as_far_as_it_goes(frames, data):
    text = written(frames)
    got = parse(text[: data.draw(st.integers(0, len(text)))])
    assert len(got) <= 1
    for thread in got:
        assert thread.frames == tuple(frames)[len(frames) - len(thread.frames) :]


@given(st.text())
def test_any_text_is_taken(text):
    parse(text)
    user_stack(text)


def test_this_python_writes_what_is_read():
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        threads = parse(file.read())
    (here,) = [thread for thread in threads if thread.name.startswith("Current")]
    assert here.frames[-1] == Frame(__file__, here.frames[-1].line, sys._getframe().f_code.co_name)


@pytest.mark.parametrize(
    "heading",
    [
        "Stack",
        "Current thread 0x00007f1b2c3d4e80",
        "Thread 0x00007f1b2c3d4e80",
        "Thread 0x00007f1b2c3d4e80 [hpcremote-io]",
        "Current thread 0x00007f1b2c3d4e80 [python]",
    ],
)
def test_headings_of_all_pythons(heading):
    assert parse(written([SOLVE], heading))[0].frames == (SOLVE,)


def test_odd_lines():
    text = (
        'Stack (most recent call first):\n  File ???, line ??? in ???\n  File "a "b".py", line 3 in f\n'
        "  <no Python frame>\n  ...\n"
    )
    (thread,) = parse(text)
    assert thread.frames == (Frame('a "b".py', 3, "f"), Frame("?", 0, "???"))
    assert thread.cut
    assert user_stack("Stack (most recent call first):\n  <no Python frame>\n").doing == "no Python code"
    assert user_stack("").doing == "no Python code"


# ---------------------------------------------------------------- ours and theirs


def test_our_frames_below_user_code_are_dropped():
    assert user_stack(written([*PERFORMING, SOLVE])) == Stack((SOLVE,))


def test_our_frames_above_user_code_become_what_it_waits_in():
    waiting = Frame(f"{PACKAGE}/engine/comm/interruptible.py", 40, "Allreduce")
    until, select = (
        Frame(f"{PACKAGE}/engine/comm/wait.py", 7, "until"),
        Frame("/usr/lib/python3.12/x.py", 1, "y"),
    )
    deeper = [waiting, until, select]
    assert user_stack(written([*PERFORMING, SOLVE, *deeper])) == Stack((SOLVE,), "in Allreduce")
    assert user_stack(written([*PERFORMING, SOLVE, *deeper]), "bcast") == Stack((SOLVE,), "in bcast")


def test_the_standard_library_is_seen_where_the_user_called_it():
    sleep = Frame("/usr/lib/python3.12/threading.py", 1, "wait")
    assert user_stack(written([*PERFORMING, SOLVE, sleep])).frames == (SOLVE, sleep)


def test_the_current_thread_counts():
    text = written([*PERFORMING], "Thread 0x01") + "\n" + written([*PERFORMING, SOLVE], "Current thread 0x02")
    assert user_stack(text).frames == (SOLVE,)


@pytest.mark.parametrize(
    ("frames", "doing"),
    [
        (STARTED, "starting"),
        ([*STARTED, Frame(f"{PACKAGE}/engine/mpi.py", 70, "join_world")], "starting (MPI_Init)"),
        ([*SERVING, Frame(f"{PACKAGE}/net/channel.py", 170, "wait")], "waiting for work"),
        (PERFORMING, "handling a call"),
        (
            [*SERVING, *(Frame(f"{PACKAGE}/engine/{name}.py", 1, what) for name, what in RENEWING)],
            "waiting for others, to make communicators anew after a failure",
        ),
    ],
)
def test_ranks_outside_of_user_code(frames, doing):
    assert user_stack(written(frames)) == Stack((), doing)


def test_a_stack_that_is_too_deep_to_reach_us_is_shown_as_it_is():
    text = written([SOLVE] * 100) + "  ...\n"
    assert user_stack(text) == Stack((stacks.LEFT_OUT, *[SOLVE] * 100))


@pytest.mark.parametrize(
    ("line", "operation"),
    [
        ("    comm.Allreduce(a, b)", "Allreduce"),
        ("x = world.bcast(x, 0)", "bcast"),
        ("comm.Reduce_scatter_block(a)", "Reduce_scatter_block"),
        ("request.Wait()", "Wait"),
        ("x = comm.bcast(time.sleep(1))", ""),
        ("Allreduce(a)", ""),
        ("self.reducer(a)", ""),
    ],
)
def test_operations_of_a_line(line, operation):
    assert stacks.operation_in(line) == operation


# ---------------------------------------------------------------- merging


@given(st.dictionaries(st.integers(0, 20), STACKS, max_size=8))
def test_a_tree_holds_every_stack_and_nothing_else(given_stacks):
    found: dict[int, Stack] = {}

    def walk(node: Node, path: tuple[Frame, ...]) -> None:
        ended = [rank for ranks in node.ends.values() for rank in ranks]
        assert sorted(ended + [r for c in node.children for r in c.ranks]) == sorted(node.ranks)
        assert len({child.frame for child in node.children}) == len(node.children)
        for doing, ranks in node.ends.items():
            found.update({rank: Stack(path, doing) for rank in ranks})
        for child in node.children:
            walk(child, (*path, child.frame))

    walk(merge(given_stacks), ())
    assert found == given_stacks


@given(st.dictionaries(st.integers(0, 20), STACKS, min_size=1, max_size=8))
def test_groups_share_out_the_ranks(given_stacks):
    root = merge(given_stacks)
    named = [rank for ranks, _, _ in stacks.groups(root) for rank in ranks]
    assert sorted(named) == sorted(given_stacks)
    assert len(render(root).split("\n\n")) == (2 if root.children else 1)


def test_the_headline_of_a_hang():
    run, load = Frame("/home/u/main.py", 3, "run"), Frame("/home/u/io.py", 40, "load")
    reduce = Stack((run, SOLVE), "in Allreduce")
    root = merge({0: reduce, 1: Stack((run, load)), 2: reduce, 3: reduce, 4: Stack((), stacks.IDLE)})
    text = render(root)
    assert text.splitlines() == [
        "ranks 0,2-3 in Allreduce at solve.py:12; rank 1 in load() at io.py:40; rank 4 waiting for work",
        "",
        "  0-3    run() /home/u/main.py:3",
        "  0,2-3    solve() /home/u/solve.py:12",
        "  0,2-3      in Allreduce",
        "  1        load() /home/u/io.py:40",
    ]
    assert render(root, "engine").startswith("engines 0,2-3 in Allreduce")


def test_deep_stacks_are_no_trouble():
    root = merge({0: Stack((SOLVE,) * 5000)})
    assert len(render(root).splitlines()) == 5002


# ---------------------------------------------------------------- collectives


def test_an_odd_one_out_is_named():
    rows = [Waiting(rank, "the call's communicator", 7, "allreduce") for rank in (0, 2, 3)]
    rows.append(Waiting(1, "the call's communicator", 7, "bcast", 0))
    (said,) = mismatches(rows)
    assert said == (
        "rank 1 is in bcast (root 0), ranks 0,2-3 in allreduce: "
        "operation 7 of the call's communicator differs"
    )


def test_another_root_is_a_mismatch():
    rows = [Waiting(rank, "COMM_WORLD", 2, "bcast", rank // 2) for rank in range(4)]
    assert mismatches(rows) == [
        "ranks 0-1 are in bcast (root 0), ranks 2-3 in bcast (root 1): operation 2 of COMM_WORLD differs"
    ]


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.integers(0, 9)), max_size=20))
def test_the_same_operation_is_no_mismatch(rows):
    assert mismatches(Waiting(rank, comm, index, "barrier") for rank, comm, index in rows) == []
