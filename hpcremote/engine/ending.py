"""What an engine does before its job ends: the functions that users have registered, and a save.

::

    on_walltime(f, before=300) ──Hook──▶ controller ──Run "walltime", in the one order──▶ f() on every rank
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from hpcremote.engine import here
from hpcremote.wire.pickler import Buffer

Function = TypeVar("Function", bound=Callable[[], Any])
#: As long before the end as the profile's ``walltime_warning`` says.
USUAL = -1.0


class _Hook(NamedTuple):
    function: Callable[[], Any]
    before: float


_hooks: dict[str, _Hook] = {}


def on_walltime(function: Function, before: float | None = None) -> Function:
    """Have *function* called, without arguments, before the job of this engine ends. Call this on all ranks.

    It runs on all ranks of the engine set at the same place in the one order, as a call does: it may use MPI,
    and it waits for the call that runs. It runs once, when the end is near, or when the batch system says
    that it is about to end the job. A function of the same name takes the place of an earlier one; functions
    run in the order in which they were registered, and where one fails, those after it do not run.

    Args:
        function: what to call.
        before: how many seconds before the end; default: the profile's ``walltime_warning``.

    Returns:
        The function, so that this can be a decorator.

    Raises:
        HPCRemoteError: not in a call on an engine.
    """
    if not callable(function):
        raise TypeError(f"on_walltime() takes a function without arguments, not {function!r}")
    if before is not None and not 0 <= before < float("inf"):
        raise ValueError(f"before is a number of seconds, 0 or more, not {before!r}")
    engine = here.engine("on_walltime()")
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', repr(function))}"
    hook = _Hook(function, USUAL if before is None else float(before))
    _hooks.pop(name, None)
    _hooks[name] = hook
    engine.tell_of_hook(hook.before)
    return function


def perform(digest: bytes, pieces: Sequence[Buffer]) -> None:
    """Do what the controller asks for before the end: the hooks that are due, or a save."""
    asked: Mapping[str, Any] = json.loads(bytes(pieces[0]))
    try:
        if "save" in asked:
            _save(asked["save"])
        for hook in list(_hooks.values()):
            if hook.before in asked.get("hooks", ()):
                hook.function()
    except BaseException:
        import traceback

        traceback.print_exc()  # the controller's log has the last line of it
        raise


def _save(folder: str) -> None:
    from hpcremote.engine.saving import save_namespace

    saved = save_namespace(folder)
    left_out = f", without {', '.join(saved.left_out)}" if saved.left_out else ""
    sys.stdout.write(f"{len(saved.names)} names saved to {saved.path}{left_out}\n")
