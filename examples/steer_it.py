"""Watch and steer the simulation of ``steering.py`` while it runs; see there."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import hpcremote as parallel


def heat_in_the_plate():
    """Run on the ranks: their variables are the globals here, and they may talk by MPI."""
    return step, comm.allreduce(float(u[1:-1, 1:-1].sum()))  # noqa: F821


def watch(view: parallel.DirectView, times: int, pause: float) -> None:
    """Print how the simulation gets on."""
    for _ in range(times):
        answers = view.apply_sync(heat_in_the_plate)
        if len(set(answers)) != 1:
            raise SystemExit(f"the ranks were not at the same step: {answers}")
        step, heat = answers[0]
        print(f"  step {step:7d}   heat {heat:10.1f}", flush=True)
        time.sleep(pause)


def gather(view: parallel.DirectView) -> np.ndarray:
    """Return the whole plate, as it was on all ranks between the same two steps."""
    return np.concatenate(view["u[1:-1, 1:-1]"])


def draw(fields: dict[str, np.ndarray], path: Path) -> None:
    """Save pictures of the plate side by side, if matplotlib is there."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no matplotlib, no picture")
        return
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(fields), figsize=(4.5 * len(fields), 4), layout="constrained")
    top = max(float(field.max()) for field in fields.values())
    for axis, (title, field) in zip(np.atleast_1d(axes), fields.items(), strict=True):
        image = axis.imshow(field, cmap="inferno", vmin=0.0, vmax=top, extent=(0, 1, 1, 0))
        axis.set_title(title)
    figure.colorbar(image, ax=axes, label="temperature")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"picture: {path.resolve()}")


def main() -> None:
    """Look, move the heater, look again, end it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=1, help="wait until so many are there")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two looks")
    parser.add_argument("--output", type=Path, default="build/steering.png", help="the picture")
    parser.add_argument("--leave", action="store_true", help="let the simulation go on at the end")
    options = parser.parse_args()

    with parallel.Client() as rc:
        rc.wait_for_engines(options.ranks, timeout=60)
        view = rc[:]
        view.block = True  # an assignment is done when the next line begins
        print(f"the simulation runs on {len(view)} ranks, with nu = {view['nu'][0]}")
        watch(view, 4, options.pause)
        fields = {"as it was found": gather(view)}

        print("the heater goes to the other corner")
        view["heater"] = (0.7, 0.75, 80.0)
        watch(view, 4, options.pause)
        fields["after the heater was moved"] = gather(view)

        if not options.leave:
            view["running"] = False
            print("ended")
    draw(fields, options.output)


if __name__ == "__main__":
    main()
