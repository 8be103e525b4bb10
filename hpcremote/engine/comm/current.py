"""The process' World, if it is an MPI engine; imports no mpi4py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcremote.errors import HPCRemoteError

if TYPE_CHECKING:
    from hpcremote.engine.comm.world import World

_world: World | None = None


def install(world: World | None) -> None:
    """Make *world* the one that ``comm()`` asks."""
    global _world  # noqa: PLW0603 - one a process, as MPI_Init
    _world = world


def is_there() -> bool:
    """Say whether ``comm()`` may have something to give here."""
    return _world is not None


def comm(interruptible: bool = True) -> Any:
    """Return the communicator over the engines of the call that runs now, in the order of its view.

    Args:
        interruptible: False for a plain ``MPI.Intracomm`` (its own duplicate, over the same ranks), which
            is a little faster for tiny messages, and which nothing but the end of the process gets a
            rank out of.

    Raises:
        HPCRemoteError: not inside a call on MPI engines.
    """
    if _world is None:
        raise HPCRemoteError(
            "hpcremote.comm() works inside a call on MPI engines; this process is not one, or runs no "
            "call (start the engines with an MPI profile, and call comm() in the function that they run)"
        )
    return _world.comm(interruptible)
