"""What a node agent and the controller say to each other; part of the vocabulary in ``messages.py``."""

from __future__ import annotations

from hpcremote.wire.parts import Message, Sight

# ---------------------------------------------------------------- node agent → controller


class Attend(Message, tag="attend"):
    """A node agent is here and watches these ranks; said again when there are more."""

    host: str
    pid: int
    protocol: int
    uids: list[str]


class Seen(Message, tag="seen"):
    """What the agent saw of the ranks that a Look asked for."""

    request: int
    sights: list[Sight]


class Exited(Message, tag="exited"):
    """A rank's process ended: how, as far as can be known from outside, and the last that it wrote."""

    uid: str
    cause: str
    output: str = ""


class Noticed(Message, tag="noticed"):
    """A rank's process is stopped (``T``), hangs in the kernel (``D``), or does so no more ("")."""

    uid: str
    state: str


class Remaining(Message, tag="remaining"):
    """The job of this rank ends in so many seconds, says its batch system (negative: it has no limit)."""

    uid: str
    seconds: float


class Warned(Message, tag="warned"):
    """These ranks were sent a signal by which batch systems say that a job is about to be ended."""

    uids: list[str]
    number: int


# ---------------------------------------------------------------- controller → node agent


class Look(Message, tag="look"):
    """Look where these ranks are; ``native``: in C code too, where a tool for that is installed.

    ``brief``: say only what memory they take and whether they are stopped (in ``Sight.state`` as in
    ``Noticed.state``), for which nothing is asked of them.
    """

    request: int
    uids: list[str]
    native: bool = False
    brief: bool = False


class Signal(Message, tag="signal"):
    """Send a signal to exactly these ranks."""

    uids: list[str]
    number: int


class HowLong(Message, tag="howlong"):
    """Ask the batch system when the job of this rank ends."""

    uid: str
