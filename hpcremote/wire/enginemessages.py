"""What engines and the controller say to each other; part of the vocabulary in ``messages.py``."""

from __future__ import annotations

from hpcremote.wire.parts import Member, Message, Part

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
    """Rank 0 registers the whole set.

    ``mark`` is what the processes of a cluster that hpcremote started carry in their environment, empty for
    a set that was started by hand; ``replaces`` is the set that this one is instead of. Its job ends ``left``
    seconds from now (negative: not known), and is one of the batch system ``job`` ("" if it is none that can
    be asked); ``job_key`` says which of the cluster's jobs it is, the same when that is queued again.
    """

    set_id: str
    size: int
    members: list[Member]
    mark: str = ""
    replaces: str = ""
    left: float = -1.0
    job: str = ""
    job_key: str = ""


class Done(Message, tag="done"):
    """A run ended: ``status`` is ``ok``, ``error``, ``released`` or ``aborted``; see :class:`Result`.

    ``mpi`` says what it has communicated by: ``OWN_COMM``, ``WORLD``, ``OTHERS`` (0: nothing that we know).
    """

    seq: int
    status: str
    part: Part
    started: float = 0.0
    completed: float = 0.0
    out: str = ""
    err: str = ""
    mpi: int = 0

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


class Hook(Message, tag="hook"):
    """The engine has a function that is to run so many seconds before its job ends (negative: as usual)."""

    before: float


class Leaving(Message, tag="leaving"):
    """The engine ends on purpose, and why; with ``all`` its whole MPI job, by what it does."""

    cause: str
    all: bool = False


# ---------------------------------------------------------------- controller → engine


class Joined(Message, tag="joined"):
    """The set is registered. ``shm`` is the cluster's shared-memory folder (local engines)."""

    engine: int
    cluster_id: str
    shm: str = ""


class Run(Message, tag="run"):
    """Do ``op``; runs are done in the order of ``seq``. ``local``: the result may go by shared memory.

    ``targets`` are those of the call, in the compact form (``wire.targets``).
    """

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
    """Do not start these runs; with ``interrupt``, raise ``KeyboardInterrupt`` in one that has started."""

    seqs: list[int]
    interrupt: bool = False


class Release(Message, tag="release"):
    """This run has failed elsewhere: where it waits in MPI, now or later, it is to raise ``Released``."""

    seq: int
    why: str


class Settled(Message, tag="settled"):
    """A run that failed here has ended everywhere, and no communicator has come to harm by it."""

    seq: int


class Renew(Message, tag="renew"):
    """Put fresh communicators in the place of old ones: run ``after`` failed, and may have left messages.

    That is the one over ``ranks``, in that order, and with ``world`` COMM_WORLD's stand-in, for which all
    engines of the set get this; with ``others`` also whatever broke on one of them. It is done before a run
    that is younger than ``after`` is begun, and in one that is running before it communicates on.
    """

    seq: int
    after: int
    ranks: list[int]
    world: bool
    others: bool = False


class Stock(Message, tag="stock"):
    """Make spare communicators together, for the next ``Renew``; all that get this have nothing else to do.

    That is for the one over ``ranks``, or with ``world`` for COMM_WORLD's stand-in and for all that lack one.
    """

    seq: int
    ranks: list[int]
    world: bool

    @property
    def after(self) -> int:
        """Say that it comes before any other run (see ``Renew``)."""
        return 0


class Tend(Message, tag="tend"):
    """No agent watches the engine's node: see to it that there is one."""


class Bereft(Message, tag="bereft"):
    """A rank of the engine's set has ended unasked: MPI_Finalize would wait for it."""


class Stop(Message, tag="stop"):
    """End this engine."""

    reason: str
