"""From samples to figures, from figures to verdicts, and the Markdown table of both."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import figures

#: Results: session → metric → runs, each a list of samples. Units beside them.
Runs = dict[str, dict[str, list[list[float]]]]
Units = dict[str, str]


@dataclass(frozen=True)
class Figure:
    """The median of the runs' medians, and how far those lie apart."""

    value: float
    low: float
    high: float
    runs: int
    samples: int
    unit: str


@dataclass(frozen=True)
class Verdict:
    """A need, what was reached, and whether that is enough."""

    text: str
    passed: bool


def figure(cell: figures.Cell | None, runs: Runs, units: Units) -> Figure | None:
    """The figure of one cell, if it was measured."""
    measured = runs.get(cell.session, {}).get(cell.metric) if cell else None
    if not cell or not measured:
        return None
    medians = [statistics.median(samples) for samples in measured]
    count = sum(len(samples) for samples in measured)
    return Figure(
        statistics.median(medians), min(medians), max(medians), len(medians), count, units[cell.metric]
    )


def judge(row: figures.Row, need: figures.Need, by_column: dict[str, Figure | None]) -> Verdict | None:
    """Compare; None when what is needed for that was not measured."""
    mine = by_column.get("hpcremote")
    if mine is None:
        return None
    if isinstance(need, figures.Within):
        text = f"≤ {_value(need.limit, mine.unit)}: {_value(mine.value, mine.unit)}"
        return Verdict(text, mine.value <= need.limit)
    other = by_column.get(need.column)
    if other is None:
        return None
    base = other.value
    if isinstance(need, figures.AtMost):
        limit = need.factor * base + need.extra
        plus = f" + {_value(need.extra, mine.unit)} = {_value(limit, mine.unit)}" if need.extra else ""
        reached = _value(mine.value, mine.unit) if need.extra else f"{mine.value / base:.2f} x"
        return Verdict(f"≤ {need.factor:g} x {need.column}{plus}: {reached}", mine.value <= limit)
    reached = base / mine.value if row.smaller_is_better else mine.value / base
    return Verdict(f"≥ {need.factor:g} x {need.column}: {reached:.2f} x", reached >= need.factor)


def verdicts(row: figures.Row, runs: Runs, units: Units) -> list[Verdict]:
    """What can be judged of a row."""
    by_column = {column: figure(row.cells.get(column), runs, units) for column in figures.COLUMNS}
    judged = (judge(row, need, by_column) for need in row.needs)
    return [verdict for verdict in judged if verdict]


def markdown(rows: Sequence[figures.Row], runs: Runs, units: Units) -> str:
    """The table."""
    headings = ["figure", *figures.COLUMNS.values(), "needed: reached", "verdict"]
    lines = [_line(headings), _line(["---"] * len(headings))]
    for row in rows:
        cells = [_cell(figure(row.cells.get(column), runs, units)) for column in figures.COLUMNS]
        judged = verdicts(row, runs, units)
        needed = "<br>".join(verdict.text for verdict in judged)
        marks = "<br>".join("pass" if verdict.passed else "**short**" for verdict in judged)
        lines.append(_line([row.title, *cells, needed or "-", marks or "-"]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def _cell(shown: Figure | None) -> str:
    """A median with the range of the runs behind it."""
    if shown is None:
        return ""
    text = _value(shown.value, shown.unit)
    if shown.runs > 1 and shown.low != shown.high:
        text += f" ({_value(shown.low, shown.unit)} - {_value(shown.high, shown.unit)})"
    return text


def _value(value: float, unit: str) -> str:
    """A number in the unit that people would say it in."""
    if unit == "s":
        for scale, name in ((1, "s"), (1e-3, "ms")):
            if value >= scale:
                return f"{value / scale:.3g} {name}"
        return f"{value * 1e6:.0f} µs"
    if unit == "B/s":
        return f"{value / 1e9:.2f} GB/s"
    if unit == "B":
        return f"{value / 1e6:.1f} MB"
    if unit == "1/s":
        return f"{value:,.0f} /s"
    return f"{value:g}"
