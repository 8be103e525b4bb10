"""The view that users work with: call, run code, move data, on some engines.

Every method is one message however many engines the view has. Operations of the engines that are
used here: ``apply``, ``execute``, ``push``, ``pull``, ``clear``, ``pickler``, ``save``, ``load``.
"""

from __future__ import annotations

import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

from hpcremote.client.bulk import BulkView
from hpcremote.client.each import Each
from hpcremote.client.imports import SyncImports
from hpcremote.client.mapresult import AsyncMapResult
from hpcremote.client.maps import as_sequence, as_sequences, map_of
from hpcremote.client.remotefunction import name_of, plain_function
from hpcremote.client.result import AsyncResult
from hpcremote.client.saving import SavingView
from hpcremote.client.stacks import Outside
from hpcremote.client.viewbase import Targets
from hpcremote.wire import functions, payload


class DirectView(Outside, SavingView, BulkView):
    """Some engines, to work with.

    Views come from a client: ``rc[0]``, ``rc[:]``, ``rc[::2]``, ``rc.direct_view('all')``. A view of one
    engine (``rc[0]``) gives plain results, any other gives lists in view order. Engine namespaces
    are read and written like a dictionary::

        view = rc[:]
        view["a"] = 5
        view["a"]          # [5, 5, 5, 5]
    """

    # ------------------------------------------------------------ code

    def execute(
        self,
        code: str,
        silent: bool = True,
        targets: Targets = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run *code* in the engines' namespaces.

        Returns:
            An AsyncResult, of which ``stdout`` and ``stderr`` have what was printed.
        """
        if not isinstance(code, str):
            raise TypeError(
                f"execute() takes source code as a string, not {type(code).__name__}; see apply()"
            )
        return self._execute(code, "", silent=silent, targets=targets, block=block, label=label)

    def run(
        self,
        filename: str | PathLike[str],
        targets: Targets = None,
        block: bool | None = None,
        label: str | None = None,
    ) -> AsyncResult:
        """Run a file of this machine in the engines' namespaces."""
        path = fspath(filename)
        with tokenize.open(path) as file:  # as Python reads source files
            code = file.read()
        return self._execute(code, path, silent=True, targets=targets, block=block, label=label)

    def _execute(
        self,
        code: str,
        filename: str,
        *,
        silent: bool,
        targets: Targets,
        block: bool | None,
        label: str | None,
    ) -> AsyncResult:
        result = self._submit(
            "execute", [payload.dump((code, filename, silent))], "execute", targets, label=label
        )
        self.client.journal.add(result, code, filename)
        if self.block if block is None else block:
            result.get()
        return result

    # ------------------------------------------------------------ namespaces

    def push(
        self,
        ns: Mapping[str, Any],
        targets: Targets = None,
        block: bool | None = None,
        track: bool | None = None,
        via: str | None = None,
    ) -> Any:
        """Put the values of *ns* under their names into the engines' namespaces.

        Args:
            ns: names and values.
            targets: engines, instead of the view's.
            block: whether to wait.
            track: no meaning here.
            via: ``mpi`` or ``controller`` carries the data from engine to engine; None: whichever is faster.
        """
        if not isinstance(ns, Mapping):
            raise TypeError(f"push() takes a dictionary of names and values, not {type(ns).__name__}")
        for name in ns:
            if not isinstance(name, str):
                raise TypeError(f"push() takes names that are strings, not {name!r}")
        ids, single = self._aim(targets)
        result = self._pushed(ns, ids, via=via, single=single)
        return result.get() if (self.block if block is None else block) else result

    def update(self, ns: Mapping[str, Any]) -> Any:
        """Put values into the engines' namespaces, as ``push`` does."""
        return self.push(ns)

    def pull(
        self,
        names: str | Iterable[str],
        targets: Targets = None,
        block: bool | None = None,
        via: str | None = None,
    ) -> Any:
        """Return what the engines have under a name (or expression), or a list for several names.

        With ``via="mpi"`` the engines' values come together on the first engine, and then here.
        """
        wanted = names if isinstance(names, str) else self._names(names)
        label = names if isinstance(names, str) else ", ".join(wanted)
        ids, single = self._aim(targets)
        flight = self._pulled(wanted, f"pull {label}", ids, via)
        result = AsyncResult(self.client, flight, name=flight.name, single=single)
        return result.get() if (self.block if block is None else block) else result

    @staticmethod
    def _names(names: Any) -> tuple[str, ...]:
        if not isinstance(names, (list, tuple, set, frozenset)):
            raise TypeError(f"names are a string, or a list, tuple or set of strings, not {names!r}")
        for name in names:
            if not isinstance(name, str):
                raise TypeError(f"names are strings, not {name!r}")
        return tuple(names)

    def get(self, key_s: str | Iterable[str]) -> Any:
        """Return what the engines have under a name, or a list for several names; always waits."""
        return self.pull(key_s, block=True)

    def __getitem__(self, key: str | Iterable[str]) -> Any:
        return self.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        result = self.push({key: value})
        if isinstance(result, AsyncResult):
            # An assignment has no result that anybody could look at.
            result.add_done_callback(lambda done: _warn_of_failure(key, done))

    def clear(self, targets: Targets = None, block: bool | None = None) -> AsyncResult | None:
        """Empty the engines' namespaces."""
        result = self._submit("clear", [payload.dump(None)], "clear", targets)
        if self.block if block is None else block:
            result.get()
            return None
        return result

    # ------------------------------------------------------------ map

    def map(
        self,
        f: Callable[..., Any],
        *sequences: Any,
        block: bool | None = None,
        track: bool = False,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Any:
        """Call *f* on each item of the sequences, as the builtin ``map`` does; each engine does a block.

        Args:
            f: the function.
            *sequences: sequences or iterators; the shortest ends it.
            block: whether to wait for the result.
            track: no meaning here.
            return_exceptions: put the exception of an engine into the result instead of raising it.
            label: a name for the metadata.

        Returns:
            A list, or an :class:`AsyncMapResult`.
        """
        return self.spread(
            f, sequences, each=True, block=block, label=label, return_exceptions=return_exceptions
        )

    def map_async(self, f: Callable[..., Any], *sequences: Any, **flags: Any) -> AsyncMapResult:
        """Call *f* on each item and return an AsyncMapResult at once; see ``map``."""
        result: AsyncMapResult = self.map(f, *sequences, **_without_block("map_async", flags), block=False)
        return result

    def map_sync(self, f: Callable[..., Any], *sequences: Any, **flags: Any) -> Any:
        """Call *f* on each item and return the results; see ``map``."""
        return self.map(f, *sequences, **_without_block("map_sync", flags), block=True)

    def imap(self, f: Callable[..., Any], *sequences: Any, **flags: Any) -> Iterator[Any]:
        """Call *f* on each item and yield the results in order as they arrive; see ``map``."""
        return iter(self.map_async(f, *sequences, **flags))

    def spread(  # noqa: PLR0913 - the flags of map and of @parallel
        self,
        f: Any,
        sequences: Sequence[Any],
        *,
        each: bool,
        dist: str = "b",
        ordered: bool = True,
        return_exceptions: bool = False,
        block: bool | None = None,
        label: str | None = None,
        targets: Targets = None,
        track: bool | None = None,
    ) -> Any:
        """Deal the sequences to the engines and call *f* on *each* item, or on each engine's parts."""
        if not sequences:
            raise TypeError("map() needs a function and at least one sequence")
        f = plain_function(f)
        dealt = as_sequences(sequences) if each else [as_sequence(sequence) for sequence in sequences]
        lengths = [len(items) for items in dealt]
        if not each and min(lengths) != max(lengths):
            raise ValueError(f"the sequences of a parallel call must be of one length, not {lengths}")
        ids, _ = self._aim(targets)
        mapping, length, count = map_of(dist), min(lengths), len(ids)
        used = ids[: min(length, count)]  # engines without an item are not called
        parts = [tuple(mapping.part(items, i, count, length) for items in dealt) for i in range(len(used))]
        awaited: Any = ()
        if used:
            packed = functions.pack_function(Each(f) if each else f)
            inside, function = (None, packed) if packed.digest else (packed.data, None)
            payloads = [payload.dump_call(inside, part, {}, name=name_of(f)) for part in parts]
            awaited = self._launch("apply", payloads, name_of(f), used, function=function, label=label)
        result = AsyncMapResult(
            self.client,
            awaited,
            name=name_of(f),
            mapping=mapping,
            sizes=[len(part[0]) for part in parts] if each else None,
            ordered=ordered,
            return_exceptions=return_exceptions,
        )
        return result.get() if (self.block if block is None else block) else result

    # ------------------------------------------------------------ imports and pickling

    def sync_imports(self, local: bool = True, quiet: bool = False) -> SyncImports:
        """Return a context manager: what is imported in its block is imported on the engines too.

        Args:
            local: also import here; False imports on the engines only.
            quiet: do not say what is imported.
        """
        return SyncImports(self, local=local, quiet=quiet)

    @property
    def importer(self) -> SyncImports:
        """``sync_imports()`` as a property."""
        return self.sync_imports()

    def use_cloudpickle(self) -> Any:
        """Pickle with cloudpickle, here and on the engines (as is done from the start)."""
        return self._use("cloudpickle")

    def use_dill(self) -> Any:
        """Pickle with dill, here and on the engines."""
        return self._use("dill")

    def use_pickle(self) -> Any:
        """Pickle as from the start, here and on the engines."""
        return self._use("pickle")

    def _use(self, name: str) -> Any:
        payload.use_pickler(name)
        result = self._submit("pickler", [payload.dump(name)], f"use_{name}")
        return result.get() if self.block else result

    def activate(self, suffix: str = "") -> None:
        """Not there: hpcremote has no IPython magics.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("hpcremote has no %px magics yet: use view.execute(code)")


def _without_block(name: str, flags: dict[str, Any]) -> dict[str, Any]:
    if "block" in flags:
        raise TypeError(f"{name}() has no argument 'block'")
    return flags


def _warn_of_failure(key: str, result: Any) -> None:
    if not result.cancelled() and (error := result.exception()) is not None:
        first = str(error).partition("\n")[0]
        warnings.warn(f"view[{key!r}] = ... failed: {first}", RuntimeWarning, stacklevel=2)
