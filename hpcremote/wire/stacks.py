"""Where ranks are: Python stacks read, cleaned, merged, and told. Pure.

::

    what faulthandler wrote ──parse──▶ threads ──user_stack──▶ Stack ─┐
    (one text for each rank)            (frames)  without ours        ├─merge─▶ tree ──render──▶ text
                                                        other ranks' ─┘

A tree is what the stacks have in common, outermost call first, and parts where the ranks do. That is what
shows who waits for whom: "ranks 0,2-3 in Allreduce at solve.py:12; rank 1 in load() at io.py:40".
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: What an engine does that has nothing to do.
IDLE = "waiting for work"
#: What one does that has to make communicators anew, together with others that may be at work.
RENEWING = "waiting for others, to make communicators anew after a failure"
#: What one does that has not begun to take calls.
STARTING = "starting"

_FRAME = re.compile(r'^ +File (?:"(.*)"|\?\?\?), line (\d+|\?\?\?) in (.*)$')
#: "Stack (most ...", "Current thread 0x... (most ...", "Thread 0x... [name] (most ..." of all Pythons.
_HEADING = re.compile(r"^(Stack|(?:Current t|T)hread 0x[0-9a-f]+.*) \(most recent call first\):$")
_CUT = re.compile(r"^ +\.\.\.$")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_STANDARD = re.compile(r"/lib\d*/python3\.\d+/(?!site-packages/|dist-packages/)|^<frozen ")
#: Where an engine's own work begins: what is further out is how its Python was started, or a program that
#: lends its ranks.
_ENTRY = re.compile(r"^(.*/)engine/(main|embed|steering)\.py$")
_ENTRIES = {"main": "run", "embed": "embed", "steering": "poll"}


class Frame(NamedTuple):
    """One call on a stack. ``line`` is 0 if it is not known."""

    file: str
    line: int
    function: str

    @property
    def place(self) -> str:
        """File, without its folders, and line."""
        return f"{_base(self.file)}:{self.line or '?'}"

    @property
    def call(self) -> str:
        """The function, as in a sentence."""
        return self.function if self.function.startswith("<") else f"{self.function}()"


#: Stands for the calls further out that faulthandler has left out.
LEFT_OUT = Frame("?", 0, "<calls left out>")


class Thread(NamedTuple):
    """A thread's stack, outermost call first. ``cut``: there were more calls further out."""

    name: str
    frames: tuple[Frame, ...]
    cut: bool = False


class Stack(NamedTuple):
    """Where one rank is in its user's code, outermost call first; ``doing`` says what it does there."""

    frames: tuple[Frame, ...] = ()
    doing: str = ""


def parse(text: str) -> list[Thread]:
    """Return the threads that faulthandler wrote about, as far as it got; other lines are passed over."""
    threads: list[Thread] = []
    name, cut, inside = "", False, False
    frames: list[Frame] = []
    # What has no end yet is left out: half a line number is a wrong one.
    for line in text[: text.rfind("\n") + 1].split("\n"):
        if heading := _HEADING.match(line):
            if inside:
                threads.append(Thread(name, tuple(reversed(frames)), cut))
            name, frames, cut, inside = heading[1], [], False, True
        elif inside and (found := _FRAME.match(line)):
            number = int(found[2]) if found[2].isdigit() else 0
            frames.append(Frame(_unescape(found[1] or "?"), number, _unescape(found[3])))
        elif inside and _CUT.match(line):
            cut = True
    if inside:
        threads.append(Thread(name, tuple(reversed(frames)), cut))
    return threads


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        code = int(found[1] or found[2] or found[3], 16)
        return chr(code) if code < 0x110000 else found[0]

    return _ESCAPE.sub(character, text)


def user_stack(text: str, note: str = "") -> Stack:
    """Return where a rank is in its user's code.

    Args:
        text: what faulthandler wrote about the rank's main thread (of several threads, the current one).
        note: what the rank waits in, if it said so ("Allreduce").
    """
    threads = parse(text)
    thread = next((one for one in threads if one.name.startswith("Current")), threads[0] if threads else None)
    if thread is None or not thread.frames:
        return Stack(doing="no Python code")
    entry = next((i for i, frame in enumerate(thread.frames) if _is_entry(frame)), None)
    if entry is None:
        frames = (LEFT_OUT, *thread.frames) if thread.cut else thread.frames
        return Stack(frames, f"in {note}" if note else "")
    match = _ENTRY.match(thread.frames[entry].file)
    package, module = (match[1], match[2]) if match else ("", "")
    inner = thread.frames[entry:]
    performed = next((i for i, frame in enumerate(inner) if frame.function == "perform"), len(inner))
    frames, waiting = _theirs(inner[performed + 1 :], package)
    if not frames and module == "steering" and performed == len(inner):
        return Stack(thread.frames[:entry], "in poll")
    if not frames:
        return Stack(doing=_own_doing(inner, note))
    label = note or waiting
    return Stack(frames, f"in {label}" if label else "")


def _theirs(frames: Sequence[Frame], package: str) -> tuple[tuple[Frame, ...], str]:
    """Return the frames of the user's code, and the function of ours that it waits in, or ""."""
    ours = [frame.file.startswith(package) for frame in frames]
    end = len(frames)
    # A function of ours waits in the standard library's: those are not the user's code.
    while end and not ours[end - 1] and _STANDARD.search(frames[end - 1].file):
        end -= 1
    if not (end and ours[end - 1]):
        end = len(frames)
    last = end
    while last and ours[last - 1]:
        last -= 1
    waiting = frames[last].function if last < end else ""
    return tuple(frame for frame, own in zip(frames[:last], ours[:last], strict=True) if not own), waiting


def _is_entry(frame: Frame) -> bool:
    match = _ENTRY.match(frame.file)
    return match is not None and frame.function == _ENTRIES[match[2]]


def _own_doing(frames: Sequence[Frame], note: str) -> str:
    names = {frame.function for frame in frames}
    if "perform" in names:
        return f"in {note}" if note else "handling a call"
    if "renew_now" in names:
        return RENEWING
    if "_serve" in names:
        return IDLE if "wait" in names else "between calls"
    return f"{STARTING} (MPI_Init)" if "join_world" in names else STARTING


# ---------------------------------------------------------------- what a line of source says

_COLLECTIVES = (
    r"allgatherv?|allreduce|alltoall[vw]?|barrier|bcast|exscan|gatherv?|reduce(_scatter(_block)?)?|scan|"
    r"scatterv?|[sbr]?send|i?m?recv|sendrecv(_replace)?|i?m?probe|wait(all|any|some)?|fence"
)
_OPERATION = re.compile(rf"\.(i?(?:{_COLLECTIVES}))\(", re.IGNORECASE)


_CALL = re.compile(r"[\w\])]\(")


def operation_in(line: str) -> str:
    """Return the MPI operation that a line of source calls ("Allreduce"), or "".

    mpi4py is compiled and has no Python frame: the line that calls it is what there is to see. Of a line
    with several calls it cannot be known which one it is in.
    """
    found = _OPERATION.search(line)
    return found[1] if found and len(_CALL.findall(line)) == 1 else ""


# ---------------------------------------------------------------- merging


@dataclass
class Node:
    """Ranks whose stacks are equal up to here, and how they go on."""

    frame: Frame | None = None
    ranks: list[int] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    ends: dict[str, list[int]] = field(default_factory=dict)  # what those do that are in this very call


def merge(stacks: Mapping[int, Stack]) -> Node:
    """Return the prefix tree of the ranks' stacks; the root stands for no call."""
    root = Node()
    for rank in sorted(stacks):
        stack = stacks[rank]
        node = root
        node.ranks.append(rank)
        for frame in stack.frames:
            child = next((one for one in node.children if one.frame == frame), None)
            if child is None:
                child = Node(frame)
                node.children.append(child)
            child.ranks.append(rank)
            node = child
        node.ends.setdefault(stack.doing, []).append(rank)
    return root


def groups(root: Node) -> list[tuple[list[int], Frame | None, str]]:
    """Return who is where: ranks, the innermost call, what they do there; idle ranks last."""
    found = []
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        found += [(ranks, node.frame, doing) for doing, ranks in node.ends.items()]
    return sorted(found, key=lambda group: (group[1] is None and group[2] == IDLE, group[0]))


# ---------------------------------------------------------------- telling


def spans(numbers: Iterable[int]) -> str:
    """Return numbers as ranges: "0,2-3"."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def who(numbers: Sequence[int], noun: str = "rank") -> str:
    """Return "rank 1" or "ranks 0,2-3"."""
    return f"{noun}{'' if len(numbers) == 1 else 's'} {spans(numbers)}"


def headline(root: Node, noun: str = "rank") -> str:
    """Return who is where, in one line."""
    return "; ".join(_where(*group, noun=noun) for group in groups(root))


def _where(ranks: Sequence[int], frame: Frame | None, doing: str, noun: str) -> str:
    if frame is None:
        return f"{who(ranks, noun)} {doing}"
    return f"{who(ranks, noun)} {doing or f'in {frame.call}'} at {frame.place}"


def render(root: Node, noun: str = "rank") -> str:
    """Return the headline and, below it, the tree: one line a call, the ranks in front."""
    rows: list[tuple[str, str]] = []
    for node in root.children:
        _rows(node, 0, rows)
    width = max((len(ranks) for ranks, _ in rows), default=0)
    lines = [f"  {ranks:<{width}}  {text}" for ranks, text in rows]
    return "\n".join([headline(root, noun), *([""] if lines else []), *lines])


def _rows(node: Node, depth: int, rows: list[tuple[str, str]]) -> None:
    waiting = [(node, depth)]
    while waiting:  # stacks are deep, and so would a recursion be
        node, depth = waiting.pop()
        assert node.frame is not None  # noqa: S101 - only the root has none
        indent = "  " * depth
        place = f"{node.frame.file}:{node.frame.line or '?'}"
        rows.append((spans(node.ranks), f"{indent}{node.frame.call} {place}"))
        rows += [(spans(ranks), f"{indent}  {doing}") for doing, ranks in node.ends.items() if doing]
        waiting += [(child, depth + 1) for child in reversed(node.children)]


# ---------------------------------------------------------------- collectives that do not match


class Waiting(NamedTuple):
    """A rank in an operation of a communicator: its ``number``-th one there. ``over``: it is out of it."""

    rank: int
    communicator: str
    number: int
    operation: str
    root: int | None = None
    over: bool = False


def mismatches(rows: Iterable[Waiting], noun: str = "rank") -> list[str]:
    """Name operations that are not the same on all ranks of a communicator, the fewest ranks first."""
    meetings: dict[tuple[str, int], dict[tuple[str, int | None], list[Waiting]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in rows:
        meetings[row.communicator, row.number][row.operation, row.root].append(row)
    found = []
    for (communicator, number), sides in sorted(meetings.items()):
        if len(sides) > 1:
            ordered = sorted(sides.values(), key=lambda side: (len(side), min(side)))
            words = ", ".join(_side(side, noun, first=side is ordered[0]) for side in ordered)
            found.append(f"{words}: operation {number} of {communicator} differs")
    return found


def _side(side: list[Waiting], noun: str, *, first: bool) -> str:
    ranks = sorted(row.rank for row in side)
    operation, root = side[0].operation, side[0].root
    what = f"{operation} (root {root})" if root is not None else operation
    if all(row.over for row in side):
        verb = "was " if len(ranks) == 1 else "were "
    else:
        verb = ("is " if len(ranks) == 1 else "are ") if first else ""
    return f"{who(ranks, noun)} {verb}in {what}"


def _base(file: str) -> str:
    return file.rpartition("/")[2] or file
