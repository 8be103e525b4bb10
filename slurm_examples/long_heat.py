"""Heat on a plate for longer than a job may run: it goes on where the last job has stopped.

    hpcremote run -n 4 long_heat.py FOLDER [CELLS [TOLERANCE [MINUTES]]]

Nothing is begun that needs more than *MINUTES* and would not end in time; then all is saved in FOLDER, and
the exit code is 75, at which long_heat.sbatch submits itself again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from heat import advance, prepare

import hpcremote

#: "Try again", among the exit codes of sysexits.h.
AGAIN = 75


def go_on(view: hpcremote.DirectView, folder: Path, cells: int) -> int:
    """Put back what was saved, or begin; return how many steps are done."""
    if (folder / "rank-0.hpcremote").exists():
        view.load(folder, block=True)
        done = int(view.client[0]["steps"])
        print(f"goes on after step {done}", flush=True)
        return done
    view.apply_sync(prepare, cells)
    return 0


def main(folder: str, cells: int = 400, tolerance: float = 0.001, minutes: float = 2) -> int:
    """Heat the plate until it has settled, or until the job has too little time left."""
    place, change = Path(folder).absolute(), float("inf")
    with hpcremote.Client() as rc:
        view = rc[:]
        steps = first = go_on(view, place, cells)
        try:
            while change > tolerance:
                with view.temp_flags(needs=minutes):
                    change = view.apply_sync(advance, 100)[0]
                steps += 100
        except hpcremote.NotEnoughTime as error:
            print(error)
            view.push({"steps": steps}, block=True)
            view.save(place, block=True)
            print(f"saved after step {steps}", flush=True)
            return AGAIN if steps > first else 1  # a job that got nowhere would be followed by others like it
    print(f"settled after {steps} steps: largest change {change:.4f} degrees")
    return 0


if __name__ == "__main__":
    kinds = (str, int, float, float)
    sys.exit(main(*(kind(word) for kind, word in zip(kinds, sys.argv[1:], strict=False))))
