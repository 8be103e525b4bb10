"""What is compared with what, and what hpcremote must reach: the table as data.

Each row's cells say which session measured it under which metric. Sessions are in ``sessions.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

#: Column → its heading. ``floor`` is the least that it can cost: raw ZeroMQ, bare MPI, bare Python.
COLUMNS = {
    "hpcremote": "hpcremote",
    "floor": "floor",
    "ipyparallel": "ipyparallel",
    "dask": "dask",
    "futures": "mpi4py.futures",
}


@dataclass(frozen=True)
class Cell:
    """Where a figure comes from."""

    session: str
    metric: str


@dataclass(frozen=True)
class AtMost:
    """The figure is at most ``factor`` x the other column's, plus ``extra``."""

    column: str
    factor: float
    extra: float = 0.0


@dataclass(frozen=True)
class AtLeast:
    """The figure is at least ``factor`` x as good as the other column's: faster, or more a second."""

    column: str
    factor: float


@dataclass(frozen=True)
class Within:
    """The figure is at most ``limit`` in its unit, whatever the machine."""

    limit: float


Need = AtMost | AtLeast | Within


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    key: str
    title: str
    smaller_is_better: bool
    cells: dict[str, Cell]
    needs: tuple[Need, ...] = ()


def _cells(metric: str, **sessions: str) -> dict[str, Cell]:
    """Cells of one metric, by column."""
    return {column: Cell(session, metric) for column, session in sessions.items()}


_FOUR = {"hpcremote": "hpcremote", "ipyparallel": "ipyparallel", "dask": "dask"}
_SIXTEEN = {"hpcremote": "hpcremote-16", "ipyparallel": "ipyparallel-16"}

_BULK = {
    "push_all": ("push 100 MB to all of", "push to one + Bcast"),
    "scatter": ("scatter 100 MB over", "push to one + Scatterv"),
    "gather": ("gather 100 MB from", "Gatherv + pull from one"),
    "reduce": ("reduce 100 MB on each of", "Reduce + pull from one"),
}
_PLACES = {
    "4": ("hpcremote", "4 engines, local"),
    "8": ("hpcremote-8", "8 engines, local"),
    "tcp-4": ("hpcremote-tcp", "4 engines, TCP with CURVE"),
    "tcp-8": ("hpcremote-tcp-8", "8 engines, TCP with CURVE"),
}


def _bulk_rows() -> Iterator[Row]:
    """Bulk data to and from all ranks of a job; the floor is what it takes by hand (peers/collective.py)."""
    for metric, (doing, by_hand) in _BULK.items():
        for place, (session, where) in _PLACES.items():
            cells = {"hpcremote": Cell(session, metric), "floor": Cell(session, f"{metric}_floor")}
            title = f"{doing} {where} (floor: {by_hand}, native)"
            yield Row(f"{metric.replace('_', '-')}-{place}", title, True, cells, (AtMost("floor", 1.5),))


_BY = {"mpi": "by MPI", "controller": "by the controller"}
_TOLD = ("push_all", "scatter", "gather")


def _told_rows() -> Iterator[Row]:
    """The same with ``via``: what is behind the choice that is made when nobody says who carries the data."""
    for metric, place, via in itertools.product(_TOLD, ("4", "tcp-4", "tcp-8"), _BY):
        session, where = _PLACES[place]
        cells = {"hpcremote": Cell(session, f"{metric}_{via}"), "floor": Cell(session, f"{metric}_floor")}
        needs = (AtMost("floor", 1.5),) if via == "mpi" and place != "4" else ()
        title = f"{_BULK[metric][0]} {where}, told to go {_BY[via]}"
        yield Row(f"{metric.replace('_', '-')}-{place}-{via}", title, True, cells, needs)


def _trouble_rows() -> Iterator[Row]:
    """How soon the client knows that something is wrong with a rank (peers/troubles.py)."""
    titles = {
        "raise": "rank 1 of 4 raises, to its error in the client; the others wait in `allreduce` (aim: 1 s)",
        "death": "rank 1 of 4 is killed, to the `EngineError` of the call that it was in (aim: 1 s)",
    }
    for metric, title in titles.items():
        yield Row(metric, title, True, _cells(metric, hpcremote="hpcremote"), (Within(1.0),))


def _flight_rows() -> Iterator[Row]:
    """Where the time of calls in flight goes (peers/processors.py)."""
    for place in ("client", "controller", "engine"):
        title = f"processor time of the {place} for one of them"
        yield Row(f"in-flight-{place}", title, True, _cells(f"inflight_{place}", hpcremote="hpcremote"))


ROWS = (
    Row(
        "call",
        "empty `apply_sync` on one engine, default local transport",
        True,
        _cells("call_one", **_FOUR, floor="floor", futures="futures"),
        (AtMost("floor", 1.5), AtLeast("ipyparallel", 10)),
    ),
    Row(
        "call-tcp",
        "the same over TCP with CURVE",
        True,
        _cells("call_one", hpcremote="hpcremote-tcp", floor="floor"),
        (AtMost("floor", 2.5),),
    ),
    Row(
        "call-all-4",
        "empty call on all of 4 engines",
        True,
        _cells("call_all", **_FOUR),
        (AtLeast("ipyparallel", 15),),
    ),
    Row(
        "call-all-16",
        "empty call on all of 16 engines",
        True,
        _cells("call_all", **_SIXTEEN),
        (AtLeast("ipyparallel", 15),),
    ),
    Row(
        "in-flight",
        "calls in flight to one engine, per second",
        False,
        _cells("inflight", **_FOUR, floor="floor", futures="futures"),
        (AtLeast("floor", 0.5), AtLeast("ipyparallel", 30)),
    ),
    *_flight_rows(),
    Row(
        "push",
        "push 100 MB to one engine, local",
        False,
        _cells("push", **_FOUR, floor="floor"),
        (AtLeast("floor", 1.5), AtLeast("dask", 1)),
    ),
    Row(
        "pull",
        "pull 100 MB from one engine, local",
        False,
        _cells("pull", **_FOUR, floor="floor"),
        (AtLeast("floor", 1.5), AtLeast("dask", 1)),
    ),
    *_bulk_rows(),
    *_told_rows(),
    *_trouble_rows(),
    Row(
        "start",
        "cluster start to first result from all of 4",
        True,
        _cells("start", **_FOUR, floor="bare"),
        (AtMost("floor", 2, extra=1.0), AtLeast("ipyparallel", 5)),
    ),
    Row(
        "memory",
        "unique memory of an idle engine",
        True,
        _cells("uss", hpcremote="hpcremote", floor="bare"),
        (AtMost("floor", 1.25),),
    ),
    Row(
        "processes",
        "processes an engine",
        True,
        _cells("processes", hpcremote="hpcremote", floor="bare"),
        (AtMost("floor", 1),),
    ),
    Row(
        "connections",
        "open sockets an engine (a bare rank's are mpiexec's)",
        True,
        _cells("connections", hpcremote="hpcremote", floor="bare"),
        (AtMost("floor", 1, extra=1),),
    ),
    Row(
        "import",
        "`import hpcremote` beside `import zmq, cloudpickle`",
        True,
        {"hpcremote": Cell("imports", "import"), "floor": Cell("imports", "import_bare")},
        (AtMost("floor", 1.3),),
    ),
    Row(
        "import-client",
        "`from hpcremote import Client` beside the same",
        True,
        {"hpcremote": Cell("imports", "import_client"), "floor": Cell("imports", "import_bare")},
    ),
)


def select(keys: list[str]) -> list[Row]:
    """Rows by key; all of them when no key is given.

    Raises:
        SystemExit: a key is unknown.
    """
    known = [row.key for row in ROWS]
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise SystemExit(f"No row is called {', '.join(unknown)}. There are: {', '.join(known)}.")
    return [row for row in ROWS if not keys or row.key in keys]
