"""Functions that run on engines whenever they are called: ``@view.remote()``, ``@view.parallel()``."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpcremote.client.view import DirectView
    from hpcremote.client.viewbase import View


def name_of(f: object) -> str:
    """Return what to call *f* in messages."""
    name = getattr(f, "__name__", None) or getattr(f, "name", None)
    return name if isinstance(name, str) else type(f).__name__


def plain_function(f: Any) -> Any:
    """Return the function that is to be called on engines.

    Raises:
        TypeError: *f* cannot be called.
    """
    if isinstance(f, RemoteFunction):
        return f.func
    if not callable(f):
        hint = "; for source code there is execute()" if isinstance(f, str) else ""
        raise TypeError(f"engines are given a function to call, not {type(f).__name__} {f!r:.60}{hint}")
    return f


def remote(
    view: View, block: bool | None = None, **flags: Any
) -> Callable[[Callable[..., Any]], RemoteFunction]:
    """Return a decorator that makes a function run on the view's engines whenever it is called.

    Args:
        view: where it runs.
        block: whether a call waits for the result (default: the view's ``block``).
        **flags: ``targets`` or ``label`` of its calls.
    """
    return lambda f: RemoteFunction(view, f, block=block, **flags)


def parallel(
    view: DirectView, dist: str = "b", block: bool | None = None, ordered: bool = True, **flags: Any
) -> Callable[[Callable[..., Any]], ParallelFunction]:
    """Return a decorator that makes a function run on the view's engines, each on a part of its arguments.

    Args:
        view: where it runs.
        dist: how arguments are dealt: ``b`` in blocks, ``r`` in turns.
        block: whether a call waits for the result (default: the view's ``block``).
        ordered: whether iteration yields the items in order rather than as they arrive.
        **flags: ``targets`` or ``label`` of its calls, ``return_exceptions``.
    """
    return lambda f: ParallelFunction(view, f, dist=dist, block=block, ordered=ordered, **flags)


class RemoteFunction:
    """A function that runs on a view's engines whenever it is called.

    Attributes:
        view: where it runs.
        func: the function itself.
    """

    def __init__(self, view: Any, f: Callable[..., Any], block: bool | None = None, **flags: Any) -> None:
        for name in flags:
            if name not in ("targets", "label", "track"):
                raise KeyError(f"a remote function has no flag {name!r}, only targets, label, track")
        functools.update_wrapper(self, f, updated=())
        self.view = view
        self.func = f
        self.block = block
        self.flags = flags

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function on the engines."""
        return self.view.call(self.func, args, kwargs, block=self.block, **self.flags)

    def __reduce__(self) -> tuple[Any, ...]:
        # On an engine it is the plain function: there are no engines of an engine.
        return functools.partial, (self.func,)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {name_of(self.func)} on {self.view!r}>"


class ParallelFunction(RemoteFunction):
    """A function that runs on a view's engines, each on its part of the arguments.

    Calling it calls the function on each part; ``map`` calls the function on each item.
    """

    def __init__(
        self,
        view: Any,
        f: Callable[..., Any],
        dist: str = "b",
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **flags: Any,
    ) -> None:
        super().__init__(view, f, block=block, **flags)
        if chunksize is not None:
            warnings.warn("chunksize has no meaning here: every engine gets one part", stacklevel=2)
        self.dist = dist
        self.ordered = ordered
        self.return_exceptions = return_exceptions

    def __call__(self, *sequences: Any) -> Any:
        """Call the function on each engine's part of the sequences, which must be of one length."""
        return self._spread(sequences, each=False)

    def map(self, *sequences: Any) -> Any:
        """Call the function on each item of the sequences, as the builtin ``map`` does."""
        return self._spread(sequences, each=True)

    def _spread(self, sequences: tuple[Any, ...], *, each: bool) -> Any:
        return self.view.spread(
            self.func,
            sequences,
            each=each,
            dist=self.dist,
            ordered=self.ordered,
            return_exceptions=self.return_exceptions,
            block=self.block,
            **self.flags,
        )
