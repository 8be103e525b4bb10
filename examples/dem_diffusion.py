"""Four MPI ranks at your prompt: a tour of the API, then erosion of a real mountain range.

``make demo`` runs this. The input is a digital elevation model of the Jacksboro fault in Tennessee,
which matplotlib ships as sample data. Hill-slope diffusion (the simplest model of erosion: soil
creeps from steep to flat) is stepped on blocks of rows, one block a rank::

    client                  rank 0      rank 1      rank 2      rank 3
    view.scatter  ────────▶ rows 0-85   86-171      172-257     258-343
    view.apply(advance) ──▶    ◀─ edge rows by MPI Sendrecv, in every step ─▶
                               ◀───── minimum, maximum, mean by Allreduce ──▶
    view.gather   ◀──────── compared with the same steps done here, in one piece
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cbook import get_sample_data

import hpcremote as parallel

RANKS = 4
STEPS = 200
STEPS_A_CALL = 40
#: Soil diffusivity in square metres a year: a usual value for a humid hill slope.
DIFFUSIVITY = 0.01


def say(text: str = "") -> None:
    """Print a line of progress at once, also into a pipe."""
    print(text, flush=True)


# ---------------------------------------------------------------- the tour


TOUR = [
    ("The engines are MPI ranks; engine id is rank.", ["rc.ids"]),
    (
        "A view is some of them. A call on it is made on each, and gives a list.",
        ["everyone = rc[:]", "everyone.apply_sync(pow, 2, 10)"],
    ),
    (
        "Each engine has a namespace that stays. Push into it, compute in it, pull from it.",
        [
            "everyone['a'] = 5",
            "everyone.execute('from mpi4py import MPI; b = a * MPI.COMM_WORLD.rank', block=True)",
            "everyone['b']",
        ],
    ),
    (
        "Functions that you type here see that namespace as their globals.",
        ["def scaled(factor):\n    return factor * b", "everyone.apply_sync(scaled, 100)"],
    ),
    (
        "They may talk to each other by MPI: the sum over all ranks of their own b.",
        ["def total():\n    return MPI.COMM_WORLD.allreduce(b)", "everyone.apply_sync(total)"],
    ),
    (
        "A Reference stands for a value that is on the engines already.",
        ["everyone.apply_sync(max, parallel.Reference('b'), 7)"],
    ),
    (
        "Nothing needs to wait: a result can be asked for later.",
        ["later = rc[0].apply_async(sum, range(1000))", "later.get()"],
    ),
    (
        "Sequences are dealt out, mapped, and brought back.",
        [
            "everyone.scatter('part', list(range(10)), block=True)",
            "everyone['part']",
            "everyone.map_sync(abs, range(-3, 3))",
        ],
    ),
]


def tour(rc: parallel.Client) -> None:
    """Show what a session looks like: each line as it would be typed, and what it gives."""
    scope: dict[str, Any] = {"rc": rc, "parallel": parallel, "__name__": "__main__"}
    for remark, lines in TOUR:
        say(f"\n# {remark}")
        for line in lines:
            say(">>> " + line.replace("\n", "\n... "))
            if (value := _run(line, scope)) is not None:
                say(repr(value))
    say("\n# What goes wrong on a rank is told here, with the rank and its traceback.")
    say(">>> rc[2].execute('1 / 0', block=True)")
    try:
        rc[2].execute("1 / 0", block=True)
    except parallel.RemoteError as error:
        say(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    else:
        raise SystemExit("1 / 0 raised nothing")


def _run(line: str, scope: dict[str, Any]) -> object:
    try:
        code = compile(line, "<tour>", "eval")
    except SyntaxError:
        exec(line, scope)
        return None
    return eval(code, scope)


# ---------------------------------------------------------------- the job


def relax(field: np.ndarray, cx: float, cy: float) -> None:
    """One step of diffusion, in place; *field* has a frame of one cell around it."""
    inner = field[1:-1, 1:-1]
    inner += cx * (field[1:-1, 2:] - 2 * inner + field[1:-1, :-2]) + cy * (
        field[2:, 1:-1] - 2 * inner + field[:-2, 1:-1]
    )


def mirror_sides(field: np.ndarray) -> None:
    """No soil crosses the western and eastern edge."""
    field[:, 0] = field[:, 1]
    field[:, -1] = field[:, -2]


def advance(steps: int, cx: float, cy: float) -> tuple[float, float, float]:
    """Advance this rank's ``block`` by *steps* (runs on the engines).

    Returns:
        Minimum, maximum and mean elevation over all ranks.
    """
    from mpi4py import MPI

    global block
    comm = MPI.COMM_WORLD
    above = comm.rank - 1 if comm.rank > 0 else MPI.PROC_NULL
    below = comm.rank + 1 if comm.rank < comm.size - 1 else MPI.PROC_NULL
    field = np.pad(block, 1, mode="edge")
    for _ in range(steps):
        comm.Sendrecv(field[1].copy(), dest=above, recvbuf=field[-1], source=below)
        comm.Sendrecv(field[-2].copy(), dest=below, recvbuf=field[0], source=above)
        if above == MPI.PROC_NULL:
            field[0] = field[1]
        if below == MPI.PROC_NULL:
            field[-1] = field[-2]
        mirror_sides(field)
        relax(field, cx, cy)
    block = field[1:-1, 1:-1].copy()
    low = comm.allreduce(float(block.min()), op=MPI.MIN)
    high = comm.allreduce(float(block.max()), op=MPI.MAX)
    mean = comm.allreduce(float(block.sum())) / comm.allreduce(block.size)
    return low, high, mean


def advance_here(elevation: np.ndarray, steps: int, cx: float, cy: float) -> np.ndarray:
    """Do the same steps on the whole grid, in this process."""
    field = np.pad(elevation, 1, mode="edge")
    for _ in range(steps):
        field[0] = field[1]
        field[-1] = field[-2]
        mirror_sides(field)
        relax(field, cx, cy)
    return field[1:-1, 1:-1].copy()


def load() -> tuple[np.ndarray, float, float]:
    """Return the elevation in metres, and the width and height of a cell in metres."""
    with get_sample_data("jacksboro_fault_dem.npz") as data:
        elevation = data["elevation"].astype(float)
        degree = 111_200.0
        dx = float(data["dx"]) * degree * np.cos(np.radians(float(data["ymin"])))
        dy = float(data["dy"]) * degree
    return elevation, float(dx), float(dy)


def erode(rc: parallel.Client, elevation: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """Run the job on the ranks and return the eroded elevation."""
    step_years = 0.2 * min(dx, dy) ** 2 / DIFFUSIVITY  # 0.25 is where the scheme becomes unstable
    cx, cy = DIFFUSIVITY * step_years / dx**2, DIFFUSIVITY * step_years / dy**2
    everyone = rc[:]
    everyone.block = True
    everyone.scatter("block", elevation)
    say(f"rows on each rank: {everyone.apply(lambda: len(block))}")
    say("elevation in metres, reduced over the ranks by MPI:")
    say(f"{'step':>6} {'years':>10} {'lowest':>9} {'highest':>9} {'mean':>9}")
    started = time.perf_counter()
    for done in range(STEPS_A_CALL, STEPS + 1, STEPS_A_CALL):
        reduced = everyone.apply(advance, STEPS_A_CALL, cx, cy)
        if len(set(reduced)) != 1:
            raise SystemExit(f"the ranks disagree on what they reduced together: {reduced}")
        low, high, mean = reduced[0]
        say(f"{done:6d} {done * step_years:10,.0f} {low:9.3f} {high:9.3f} {mean:9.3f}")
    eroded = everyone.gather("block")
    say(f"gathered {eroded.shape[0]} x {eroded.shape[1]} cells after {time.perf_counter() - started:.2f} s")

    difference = float(np.abs(eroded - advance_here(elevation, STEPS, cx, cy)).max())
    say(f"largest difference from the same steps done in one piece, here: {difference:.3g} m")
    if eroded.shape != elevation.shape or not difference < 1e-9:
        raise SystemExit("the parallel result is not the serial one")
    return eroded


def draw(before: np.ndarray, after: np.ndarray, dx: float, dy: float, path: Path) -> None:
    """Save both landscapes as shaded relief, and what was carried away and laid down."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LightSource

    light = LightSource(azdeg=315, altdeg=45)
    scale = {"vert_exag": 2, "dx": dx, "dy": dy, "vmin": before.min(), "vmax": before.max()}
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    for axis, field in zip(axes, (before, after), strict=False):
        axis.imshow(light.shade(field, cmap=plt.get_cmap("gist_earth"), blend_mode="soft", **scale))
    axes[0].set_title("today")
    axes[1].set_title(f"after {STEPS} steps on {RANKS} ranks")
    change = after - before
    limit = float(np.abs(change).max())
    shown = axes[2].imshow(change, cmap="RdBu", vmin=-limit, vmax=limit)
    axes[2].set_title("carried away (red) and laid down (blue)")
    figure.colorbar(shown, ax=axes[2], label="metres", shrink=0.8)
    edges = np.cumsum([len(part) for part in np.array_split(before, RANKS)])[:-1]
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks(edges - 0.5, [f"rank {rank}" for rank in range(1, RANKS)], fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> int:
    """Run the demonstration; 0 when everything was as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default="build/dem_diffusion.png", help="the picture")
    output = parser.parse_args().output

    started = time.perf_counter()
    say(f"Starting a controller and {RANKS} MPI ranks (profile 'mpi') ...")
    with parallel.Cluster(n=RANKS, profile="mpi") as rc:
        say(f"ready after {time.perf_counter() - started:.1f} s")
        tour(rc)
        say("\nNow a real job: erosion of the Jacksboro fault, Tennessee, by hill-slope diffusion.")
        elevation, dx, dy = load()
        rows, columns = elevation.shape
        say(f"{rows} x {columns} cells of {dx:.0f} m x {dy:.0f} m, scattered by rows")
        eroded = erode(rc, elevation, dx, dy)
    say("Cluster stopped. Drawing ...")
    draw(elevation, eroded, dx, dy, output)
    say(f"picture: {output.resolve()}")
    say(f"all is well, {time.perf_counter() - started:.1f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
