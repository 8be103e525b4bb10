"""Heat on a plate for longer than a job may run: it goes on where the last job has stopped.

    hpcremote run -n 4 long_heat.py FOLDER [CELLS [TOLERANCE [MINUTES]]]

Nothing is begun that needs more than *MINUTES* and would not end in time; then all is saved in FOLDER, and
the exit code is 75, at which long_heat.sbatch submits itself again.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hpcremote

#: "Try again", among the exit codes of sysexits.h.
AGAIN = 75


def begin(cells: int) -> None:
    """Begin on this rank. What is saved are the engines' own names, and not those that heat.py has."""
    global plate, steps
    import heat

    heat.prepare(cells)
    plate, steps = heat.plate, 0


def advance(count: int) -> float:
    """Do some steps, and count them."""
    global steps
    import heat

    change = heat.advance(count)
    steps += count
    return change


def take_up() -> int:
    """Go on with what has been put back; return how many steps are done."""
    import heat

    heat.plate = plate
    return steps


def go_on(view: hpcremote.DirectView, folder: Path, cells: int) -> int:
    """Put back what was saved, or begin; return how many steps are done."""
    if (folder / "rank-0.hpcremote").exists():
        view.load(folder, block=True)
        done = view.apply_sync(take_up)[0]
        print(f"goes on after step {done}", flush=True)
        return done
    view.apply_sync(begin, cells)
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
                print(f"after {steps:5} steps: largest change {change:.4f} degrees", flush=True)
        except hpcremote.NotEnoughTime as error:
            print(error)
            view.save(place, block=True)
            print(f"saved after step {steps}", flush=True)
            return AGAIN if steps > first else 1  # a job that got nowhere would be followed by others like it
    print(f"settled after {steps} steps: largest change {change:.4f} degrees")
    return 0


if __name__ == "__main__":
    kinds = (str, int, float, float)
    sys.exit(main(*(kind(word) for kind, word in zip(kinds, sys.argv[1:], strict=False))))
