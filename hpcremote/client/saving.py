"""Views that save the engines' namespaces to files, and put them back."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from os import PathLike, fspath
from typing import Any

from hpcremote.client.viewbase import Targets, View
from hpcremote.errors import SaveError, spans
from hpcremote.wire import payload
from hpcremote.wire.saved import Saved
from hpcremote.wire.targets import expand


class SavingView(View):
    """``save`` and ``load``."""

    def save(
        self,
        path: str | PathLike[str],
        names: str | Iterable[str] | None = None,
        targets: Targets = None,
        block: bool | None = None,
    ) -> Any:
        """Save the engines' namespaces, one file an engine, on the engines' file system.

        A file appears as a whole, and replaces an older one only when all engines of one MPI job could write
        theirs. What cannot be pickled is left out: ``left_out`` of the result and a warning name it.

        Args:
            path: a folder, or a file's name with ``{rank}`` in it, which stands for the engine's id.
            names: what to save; default: every name that was put there. What is named has to be there, and
                nothing of it is left out.
            targets: engines, instead of the view's.
            block: whether to wait.

        Returns:
            For each engine a ``Saved`` (engine, path, names, bytes, left_out), or an AsyncResult.
        """
        chosen = (fspath(path), _names(names))
        result = self._submit("save", [payload.dump(chosen)], f"save {chosen[0]}", targets)
        if not (self.block if block is None else block):
            return result
        value = result.get()
        _warn_of_gaps([value] if isinstance(value, Saved) else value)
        return value

    def load(
        self,
        path: str | PathLike[str],
        names: str | Iterable[str] | None = None,
        targets: Targets = None,
        block: bool | None = None,
    ) -> Any:
        """Put back what ``save`` has saved, each engine its own; names that are not in the files stay.

        All files are looked at before anything is put back. Unpickling runs what is in them.

        Args:
            path: as for ``save``.
            names: what to put back; default: all that was saved.
            targets: engines, instead of the view's.
            block: whether to wait until it is put back.

        Returns:
            For each engine a ``Saved`` (engine, path, names, bytes, left_out), or an AsyncResult.

        Raises:
            SaveError: the files were saved by more engines than there are, or not all in one call.
            CompositeError: on some engines a file is missing, damaged or somebody else's; its ``errors`` say
                so (a view of one engine raises the SaveError itself).
        """
        chosen = (fspath(path), _names(names))
        seen = self._submit("peek", [payload.dump(chosen[0])], f"look at {chosen[0]}", targets)
        heads = seen.get()
        ids, _ = self._aim(targets)
        _check(chosen[0], ids, [heads] if isinstance(heads, tuple) else heads, self.client.ids)
        result = self._submit("load", [payload.dump(chosen)], f"load {chosen[0]}", targets)
        return result.get() if (self.block if block is None else block) else result


def _names(names: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(names)


def _check(
    path: str, ids: Sequence[int], heads: Sequence[tuple[str, float, list[int]]], here: Sequence[int]
) -> None:
    saves: dict[str, list[int]] = {}
    times: dict[str, float] = {}
    for engine, (stamp, when, _) in zip(ids, heads, strict=True):
        saves.setdefault(stamp, []).append(engine)
        times[stamp] = max(when, times.get(stamp, when))
    if len(saves) > 1:
        told = "; ".join(
            f"engines {spans(sorted(who))} at {_clock(times[one])}" for one, who in saves.items()
        )
        raise SaveError(f"the files in {path} were not saved together, and may not belong together: {told}")
    together = expand(heads[0][2])
    if missing := sorted(set(together).difference(here)):
        raise SaveError(
            f"what is in {path} was saved by {len(together)} engines, and there are {len(here)}: engines "
            f"{spans(missing)} are missing. Start {len(together)} engines to put it back"
        )


def _clock(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def _warn_of_gaps(records: Sequence[Saved]) -> None:
    gaps: dict[str, list[int]] = {}
    for record in records:
        for name, why in record.left_out.items():
            gaps.setdefault(f"{name} ({why})", []).append(record.engine)
    if gaps:
        told = "; ".join(f"{what} on engines {spans(sorted(who))}" for what, who in gaps.items())
        warnings.warn(f"save: not saved, because it cannot be pickled: {told}", RuntimeWarning, stacklevel=3)
