"""The vocabulary of the system: every message between client, controller and engine.

Read this file first. ``docs/reference/wire.md`` is made from it.

::

    client ──Hello──▶ controller        Welcome ◀── (or Refused)
    client ──Call──▶ controller ──Run──▶ engine ──Done──▶ controller ──Result──▶ client
                                         engine ──Print─▶ controller ──Output──▶ client
    engine ──Phase (while it starts), Join (each rank), Register (rank 0 for its set)──▶ controller
                                     engine ◀──Joined── controller ──Engines──▶ clients
    agent ──Attend, Exited, Noticed, Warned──▶ controller ──Look, Signal──▶ agent ──Seen──▶ controller
    controller ──HowLong──▶ agent ──Remaining──▶ controller ──TimeLeft──▶ clients

A message is a small header. What users send travels beside it as a :class:`Part`, which only the
two ends look into: the controller hands it on as it is.

* ``Call`` is one message however many engines it is for; the controller gives it one number
  (``seq``) and puts it into every target's queue in the same step.
* ``call`` numbers are the client's own (1, 2, 3, ...); ``seq`` numbers are the controller's.
* Times are seconds since the epoch (``time.time()``) on the clock of the machine that took them.
"""

from __future__ import annotations

from hpcremote.wire.agentmessages import (
    Attend,
    Exited,
    HowLong,
    Look,
    Noticed,
    Remaining,
    Seen,
    Signal,
    Warned,
)
from hpcremote.wire.enginemessages import (
    Bereft,
    Done,
    Drop,
    Given,
    Hook,
    Join,
    Joined,
    Lacking,
    Leaving,
    Phase,
    Print,
    Register,
    Release,
    Renew,
    Run,
    Settled,
    Stock,
    Stop,
    Tend,
)
from hpcremote.wire.parts import (
    OTHERS,
    OWN_COMM,
    PROTOCOL,
    WORLD,
    Count,
    EngineInfo,
    Gone,
    Member,
    Message,
    Part,
    Sight,
)

__all__ = [
    "AGENT_MESSAGES",
    "CLIENT_MESSAGES",
    "ENGINE_MESSAGES",
    "OTHERS",
    "OWN_COMM",
    "PROTOCOL",
    "WORLD",
    "Abort",
    "Answer",
    "AnyMessage",
    "Attend",
    "Bereft",
    "Call",
    "Count",
    "Define",
    "Done",
    "Drop",
    "EngineInfo",
    "Engines",
    "Exited",
    "FromAgent",
    "FromClient",
    "FromEngine",
    "Given",
    "Gone",
    "Hanging",
    "Hello",
    "Hook",
    "HowLong",
    "Join",
    "Joined",
    "Kill",
    "Lacking",
    "Leaving",
    "Look",
    "Member",
    "Message",
    "Missing",
    "Noticed",
    "Output",
    "Part",
    "Phase",
    "Print",
    "Query",
    "Refused",
    "Register",
    "Release",
    "Remaining",
    "Renew",
    "Restart",
    "Result",
    "Run",
    "Seen",
    "Settled",
    "Shutdown",
    "Sight",
    "Signal",
    "Stock",
    "Stop",
    "Tend",
    "TimeLeft",
    "ToAgent",
    "ToClient",
    "ToEngine",
    "Warned",
    "Welcome",
    "Where",
]

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
    (empty: it is in the part). ``op`` is one of ``engine.operations``. When it has failed on one engine,
    those that wait for that one in MPI are released after ``grace`` seconds (negative: the profile's).
    It is refused where the job of an engine ends in less than ``needs`` seconds.
    ``targets`` are in the compact form (``wire.targets``): ``-n`` behind an id stands for the next *n* ids.
    """

    call: int
    targets: list[int]
    op: str
    digest: bytes
    parts: list[Part]
    label: str = ""
    grace: float = -1.0
    needs: float = 0.0

    @property
    def nframes(self) -> int:
        """Frames of all parts, in order."""
        parts = self.parts
        return parts[0].nframes if len(parts) == 1 else sum([part.nframes for part in parts])


class Abort(Message, tag="abort"):
    """Drop these calls of this client (empty: all of its calls) where they have not started.

    With ``interrupt``, a ``KeyboardInterrupt`` is raised in them where they have.
    """

    calls: list[int]
    targets: list[int]
    interrupt: bool = False


class Shutdown(Message, tag="shutdown"):
    """End these engines; with ``controller`` everything."""

    request: int
    targets: list[int]
    controller: bool


class Query(Message, tag="query"):
    """Ask the controller for ``what``, such as ``queue_status``, or what engines' ``processes`` do."""

    request: int
    what: str


class Where(Message, tag="where"):
    """Ask where these engines are. The answer has what was seen of each under its id (:class:`Sight`).

    With ``native``, in C code too, where the node has a tool for that, which stops the process meanwhile.
    """

    request: int
    targets: list[int]
    native: bool = False


class Kill(Message, tag="kill"):
    """Send a signal to the processes of exactly these engines."""

    request: int
    targets: list[int]
    number: int


class Restart(Message, tag="restart"):
    """End what is left of an engine set and start it again under the same ids, within ``timeout`` seconds."""

    request: int
    set_id: str
    timeout: float = 60.0


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
    ``released`` (an error too: it waited in MPI for an engine on which the call had failed),
    ``aborted``, ``refused`` (``err`` says why), or ``lost`` (``err`` says how the engine ended).
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


class Hanging(Message, tag="hanging"):
    """A call has run for so long that the watchdog looked: ``data`` is what a Where is answered."""

    call: int
    seconds: float
    data: str


class TimeLeft(Message, tag="timeleft"):
    """The job of an engine set ends in so many seconds (negative: nobody knows of a limit).

    ``why`` says that its scheduler is about to end it, if that has been heard.
    """

    set_id: str
    seconds: float
    why: str = ""


class Answer(Message, tag="answer"):
    """The answer to a Query or Shutdown, as JSON; ``error`` when it could not be done."""

    request: int
    data: str
    error: str = ""


FromClient = Hello | Define | Call | Abort | Shutdown | Query | Where | Kill | Restart
ToClient = Welcome | Refused | Engines | Result | Output | Missing | Hanging | TimeLeft | Answer
FromEngine = Phase | Join | Register | Done | Print | Lacking | Hook | Leaving
FromAgent = Attend | Seen | Exited | Noticed | Remaining | Warned
ToAgent = Look | Signal | HowLong
ToEngine = Joined | Refused | Run | Given | Drop | Release | Settled | Renew | Stock | Tend | Bereft | Stop
AnyMessage = (
    Hello | Define | Call | Abort | Shutdown | Query | Where | Kill | Restart
    | Welcome | Refused | Engines | Result | Output | Missing | Hanging | TimeLeft | Answer
    | Phase | Join | Register | Done | Print | Lacking | Hook | Leaving
    | Joined | Run | Given | Drop | Release | Settled | Renew | Stock | Tend | Bereft | Stop
    | Attend | Seen | Exited | Noticed | Remaining | Warned | Look | Signal | HowLong
)  # fmt: skip

#: Which role may send what; the controller refuses the rest.
CLIENT_MESSAGES = (Hello, Define, Call, Abort, Shutdown, Query, Where, Kill, Restart)
ENGINE_MESSAGES = (Phase, Join, Register, Done, Print, Lacking, Hook, Leaving)
AGENT_MESSAGES = (Attend, Seen, Exited, Noticed, Remaining, Warned)
