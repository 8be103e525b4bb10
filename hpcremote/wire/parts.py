"""What messages are made of: their base, and the small things that several of them have."""

from __future__ import annotations

from typing import Annotated

import msgspec

#: Raised by one when a message changes its meaning or shape.
PROTOCOL = 1


#: What a run has communicated by (``Done.mpi``): the communicator over its engines; anything else, such as
#: COMM_WORLD; and what is neither of these two, such as the communicator over the engines of an earlier run.
OWN_COMM, WORLD, OTHERS = 1, 2, 4

Count = Annotated[int, msgspec.Meta(ge=0)]


class Message(msgspec.Struct, array_like=True, gc=False):  # no header can be part of a cycle
    """A header that goes over the wire."""

    @property
    def nframes(self) -> int:
        """How many frames follow this header."""
        return 0


class Part(msgspec.Struct, array_like=True, gc=False):
    """A pickled object on its way: the pickle stream and its out-of-band buffers, as *pieces*.

    ``sizes`` has the length of each piece in bytes, the stream first. Pieces shorter than
    ``wire.payload.BIG`` stand one after the other in ``data``; each longer one is a frame of its own
    behind the header, or stands in the shared-memory file ``blob`` (64-byte aligned, in order).
    """

    data: bytes = b""
    sizes: list[Count] = []
    nframes: Count = 0
    blob: str = ""


class Member(msgspec.Struct, array_like=True, gc=False):
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


class EngineInfo(msgspec.Struct, array_like=True, gc=False):
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


class Sight(msgspec.Struct, array_like=True):
    """A rank, seen from outside: its Python stack (``wire.stacks``), what the kernel says, its C stack.

    ``note`` is what it noted of its collectives (``wire.notes``), ``memory`` what it has resident in bytes
    (0: not known).
    """

    uid: str
    text: str
    state: str = ""
    native: str = ""
    note: str = ""
    memory: Count = 0
