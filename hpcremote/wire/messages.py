"""The vocabulary of the system: every message between client, controller and engine.

Read this file first. ``docs/reference/wire.md`` is made from it.

::

    client ──Hello──▶ controller        Welcome ◀── (or Refused)
    client ──Call──▶ controller ──Run──▶ engine ──Done──▶ controller ──Result──▶ client
                                         engine ──Print─▶ controller ──Output──▶ client
    engine ──Phase (while it starts), Join (each rank), Register (rank 0 for its set)──▶ controller
                                     engine ◀──Joined── controller ──Engines──▶ clients

A message is a small header. What users send travels beside it as a :class:`Part`, which only the
two ends look into: the controller hands it on as it is.

* ``Call`` is one message however many engines it is for; the controller gives it one number
  (``seq``) and puts it into every target's queue in the same step.
* ``call`` numbers are the client's own (1, 2, 3, ...); ``seq`` numbers are the controller's.
* Times are seconds since the epoch (``time.time()``) on the clock of the machine that took them.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

#: Raised by one when a message changes its meaning or shape.
PROTOCOL = 1


Count = Annotated[int, msgspec.Meta(ge=0)]


class Message(msgspec.Struct, array_like=True):
    """A header that goes over the wire."""

    @property
    def nframes(self) -> int:
        """How many frames follow this header."""
        return 0


class Part(msgspec.Struct, array_like=True):
    """A pickled object on its way: the pickle stream and its out-of-band buffers, as *pieces*.

    ``sizes`` has the length of each piece in bytes, the stream first. Pieces shorter than
    ``wire.payload.BIG`` stand one after the other in ``data``; each longer one is a frame of its own
    behind the header, or stands in the shared-memory file ``blob`` (64-byte aligned, in order).
    """

    data: bytes = b""
    sizes: list[Count] = []
    nframes: Count = 0
    blob: str = ""


class Member(msgspec.Struct, array_like=True):
    """What identifies one rank of an engine set."""

    uid: str
    rank: int
    host: str
    pid: int
    local_rank: int = 0
    python: str = ""
    version: str = ""
    mpi: str = ""
    cores: str = ""


class EngineInfo(msgspec.Struct, array_like=True):
    """An engine as clients see it. ``rank`` is -1 for an engine that is not an MPI rank."""

    id: int
    uid: str
    set_id: str
    rank: int
    size: int
    host: str
    pid: int
    local: bool
    python: str = ""
    version: str = ""
    mpi: str = ""
    cores: str = ""


class Gone(msgspec.Struct, array_like=True):
    """An engine that left, how, and the last that it wrote."""

    id: int
    uid: str
    cause: str
    output: str = ""


# ---------------------------------------------------------------- client → controller


class Hello(Message, tag="hello"):
    """A client introduces itself."""

    uid: str
    protocol: int
    version: str
    host: str
    pid: int
    python: str


class Define(Message, tag="define"):
    """A function's definition under its digest, for these engines. Not queued: it only waits to be used."""

    targets: list[int]
    digest: bytes
    data: bytes


class Call(Message, tag="call"):
    """Do ``op`` on every target.

    ``parts`` has one entry for all targets, or one for each. ``digest`` names the function
    (empty: it is in the part). ``op`` is one of ``engine.operations``.
    """

    call: int
    targets: list[int]
    op: str
    digest: bytes
    parts: list[Part]
    label: str = ""

    @property
    def nframes(self) -> int:
        """Frames of all parts, in order."""
        return sum(part.nframes for part in self.parts)


class Abort(Message, tag="abort"):
    """Drop these calls of this client (empty: all of its calls) where they have not started."""

    calls: list[int]
    targets: list[int]


class Shutdown(Message, tag="shutdown"):
    """End these engines; with ``controller`` everything."""

    request: int
    targets: list[int]
    controller: bool


class Query(Message, tag="query"):
    """Ask the controller for ``what``: ``queue_status`` or ``info``."""

    request: int
    what: str


# ---------------------------------------------------------------- controller → client


class Welcome(Message, tag="welcome"):
    """The controller takes the client in. ``shm`` is the cluster's shared-memory folder (local clients)."""

    cluster_id: str
    version: str
    host: str
    pid: int
    engines: list[EngineInfo]
    shm: str = ""


class Refused(Message, tag="refused"):
    """The controller will not have this peer."""

    reason: str


class Engines(Message, tag="engines"):
    """Engines that came (a whole set at once) and engines that went."""

    came: list[EngineInfo]
    went: list[Gone]


class Result(Message, tag="result"):
    """What became of a call on one engine.

    ``status`` is ``ok`` (the part is the value), ``error`` (the part is a wire.failure.Failure),
    ``aborted``, or ``lost`` (``err`` says how the engine ended).
    """

    call: int
    engine: int
    status: str
    part: Part
    started: float = 0.0
    completed: float = 0.0
    out: str = ""
    err: str = ""

    @property
    def nframes(self) -> int:
        """Frames of the part."""
        return self.part.nframes


class Output(Message, tag="output"):
    """What a call printed on one engine so far: ``stream`` 1 is stdout, 2 is stderr."""

    call: int
    engine: int
    stream: int
    text: str


class Missing(Message, tag="missing"):
    """The engine no longer has this definition and waits for it."""

    engine: int
    digest: bytes


class Answer(Message, tag="answer"):
    """The answer to a Query or Shutdown, as JSON; ``error`` when it could not be done."""

    request: int
    data: str
    error: str = ""


# ---------------------------------------------------------------- engine → controller


class Join(Message, tag="join"):
    """A rank opens its connection and names its set."""

    uid: str
    set_id: str
    rank: int
    protocol: int
    version: str


class Phase(Message, tag="phase"):
    """How far a starting engine is: ``started``, ``MPI_Init``; what a slow or failed start is reported by."""

    uid: str
    host: str
    pid: int
    phase: str


class Register(Message, tag="register"):
    """Rank 0 registers the whole set."""

    set_id: str
    size: int
    members: list[Member]


class Done(Message, tag="done"):
    """A run ended: ``status`` is ``ok``, ``error`` or ``aborted``; see :class:`Result`."""

    seq: int
    status: str
    part: Part
    started: float = 0.0
    completed: float = 0.0
    out: str = ""
    err: str = ""

    @property
    def nframes(self) -> int:
        """Frames of the part."""
        return self.part.nframes


class Print(Message, tag="print"):
    """What a run printed so far."""

    seq: int
    stream: int
    text: str


class Lacking(Message, tag="lacking"):
    """The next run needs this definition and the engine does not have it (any more)."""

    seq: int
    digest: bytes


class Leaving(Message, tag="leaving"):
    """The engine ends on purpose, and why."""

    cause: str


# ---------------------------------------------------------------- controller → engine


class Joined(Message, tag="joined"):
    """The set is registered. ``shm`` is the cluster's shared-memory folder (local engines)."""

    engine: int
    cluster_id: str
    shm: str = ""


class Run(Message, tag="run"):
    """Do ``op``; runs are done in the order of ``seq``. ``local``: the result may go by shared memory."""

    seq: int
    op: str
    digest: bytes
    part: Part
    local: bool
    targets: list[int]

    @property
    def nframes(self) -> int:
        """Frames of the part."""
        return self.part.nframes


class Given(Message, tag="given"):
    """A definition; empty ``data``: nobody has it any more, fail the run that needs it."""

    digest: bytes
    data: bytes


class Drop(Message, tag="drop"):
    """Do not start these runs."""

    seqs: list[int]


class Stop(Message, tag="stop"):
    """End this engine."""

    reason: str


FromClient = Hello | Define | Call | Abort | Shutdown | Query
ToClient = Welcome | Refused | Engines | Result | Output | Missing | Answer
FromEngine = Phase | Join | Register | Done | Print | Lacking | Leaving
ToEngine = Joined | Refused | Run | Given | Drop | Stop
AnyMessage = (
    Hello | Define | Call | Abort | Shutdown | Query
    | Welcome | Refused | Engines | Result | Output | Missing | Answer
    | Phase | Join | Register | Done | Print | Lacking | Leaving
    | Joined | Run | Given | Drop | Stop
)  # fmt: skip

#: Which role may send what; the controller refuses the rest.
CLIENT_MESSAGES = (Hello, Define, Call, Abort, Shutdown, Query)
ENGINE_MESSAGES = (Phase, Join, Register, Done, Print, Lacking, Leaving)
