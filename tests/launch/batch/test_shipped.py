"""The schedulers that come with hpcremote: their scripts, with all keys set and with none."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcremote import files, profile
from hpcremote.errors import LaunchError
from hpcremote.launch.batch.draft import Draft, draft, of_controller

GOLDEN = Path(__file__).parents[2] / "golden" / "scripts"
MINE = ["pbs", "torque", "lsf", "flux", "htcondor", "htcondor-parallel"]
FOLDER = Path("/home/ada/.hpcremote/clusters/PROFILE/main")
#: Where it is no key of all schedulers: which of them have a place for it.
SOME = {
    "nodes": {"pbs", "torque", "lsf", "flux", "htcondor-parallel"},
    "ranks_per_node": {"pbs", "torque", "lsf", "flux", "htcondor-parallel"},
    "memory": {"pbs", "torque", "lsf", "htcondor", "htcondor-parallel"},
    "queue": {"pbs", "torque", "lsf", "flux"},
    "qos": {"torque", "lsf"},
    "reservation": {"torque", "lsf"},
}
ALL: dict[str, Any] = {
    "nodes": 2,
    "ranks_per_node": 4,
    "threads_per_rank": 3,
    "gpus_per_node": 2,
    "memory": "16G",
    "walltime": "1:30:00",
    "queue": "short",
    "account": "sea-ice",
    "qos": "high",
    "constraint": "icelake",
    "reservation": "r7",
    "job_name": "ice",
    "setup": ["module load mpich", "ulimit -s unlimited"],
}
DIRECTIVE = {
    "pbs": "#PBS -m n",
    "torque": "#PBS -m n",
    "lsf": "#BSUB -x",
    "flux": "#flux: --exclusive",
    "htcondor": "rank = Memory",
    "htcondor-parallel": "rank = Memory",
}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "user_dir", lambda: Path("/home/ada/.hpcremote"))


def drafted(name: str, n: int, **keys: Any) -> Draft:
    fixed = {"python": "/opt/python/bin/python", "working_dir": "/home/ann/ice"}
    chosen = profile.load(name, {**fixed, **keys})
    return draft(chosen, n, Path(str(FOLDER).replace("PROFILE", name)), "c0ffee")


def every_key(name: str) -> dict[str, Any]:
    keys = {key: value for key, value in ALL.items() if name in SOME.get(key, MINE)}
    return {**keys, "directives": [DIRECTIVE[name]]}


@pytest.mark.parametrize("which", ["all", "none"])
@pytest.mark.parametrize("name", MINE)
def test_script_and_command(name: str, which: str) -> None:
    made = drafted(name, 8, **(every_key(name) if which == "all" else {}))
    golden = (GOLDEN / f"{name}-{which}.txt").read_text()
    assert f"$ {made.command}\n\n{made.script}" == golden


@pytest.mark.parametrize("name", MINE)
def test_the_controllers_own_job(name: str) -> None:
    """One process on one node; the engines' job begins after it where the scheduler can see to that."""
    asked = {"walltime": "8:00:00", **({"queue": "service"} if name in SOME["queue"] else {})}
    fixed = {"python": "/opt/python/bin/python", "controller": "own-job", "controller_job": asked}
    chosen = profile.load(name, {**every_key(name), **fixed})
    folder = Path(str(FOLDER).replace("PROFILE", name))
    made = of_controller(chosen, folder, "c0ffee", ["-m", "hpcremote", "controller"])
    golden = (GOLDEN / f"{name}-controller.txt").read_text()
    assert f"$ {made.command}\n\n{made.script}" == golden
    engines = draft(chosen, 8, folder, "c0ffee", after="7").script
    says = {"pbs": "depend=after:7", "torque": "depend=after:7", "lsf": "-w started(7)", "flux": "=after:7"}
    assert says.get(name, "hpcremote probe") in engines


def test_what_the_controllers_job_cannot_ask_for() -> None:
    chosen = profile.load("flux", {"controller": "own-job", "controller_job": {"memory": "2G"}})
    with pytest.raises(LaunchError, match="^controller_job: key 'memory': launcher 'flux' has no place"):
        of_controller(chosen, FOLDER, "c0ffee", [])


@pytest.mark.parametrize("name", MINE)
def test_the_script_is_one(name: str, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    script = tmp_path / "job.sh"
    for keys in ({}, every_key(name)):
        script.write_text(drafted(name, 8, **keys).script)
        assert subprocess.run([bash, "-n", str(script)], capture_output=True).stderr == b""


@pytest.mark.parametrize("name", MINE)
def test_without_nodes_as_many_ranks_fit(name: str) -> None:
    made = drafted(name, 6)
    asked = {
        "pbs": "select=1:ncpus=6:mpiprocs=6",
        "torque": "nodes=1:ppn=6",
        "lsf": "-n 6",
        "flux": "--cores-per-slot=6",
        "htcondor": "request_cpus=6",
        "htcondor-parallel": "request_cpus=6",
    }
    assert asked[name] in made.script + " ".join(made.words)


def test_ranks_that_do_not_divide_by_nodes_have_room() -> None:
    assert "select=2:ncpus=3:mpiprocs=3" in drafted("pbs", 5, nodes=2).script
    assert "span[ptile=3]" in drafted("lsf", 5, nodes=2).script
    parallel = drafted("htcondor-parallel", 5, nodes=2)
    assert {"machine_count=2", "request_cpus=3"} <= set(parallel.words)
    assert 'print $2 ":3"' in parallel.script


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for key in SOME for name in MINE if name not in SOME[key]]
)
def test_what_a_scheduler_has_no_place_for_is_refused(name: str, key: str) -> None:
    with pytest.raises(LaunchError, match=re.escape(f"key {key!r}: launcher {name!r} has no place for it")):
        drafted(name, 8, **{key: ALL[key]})


def test_one_node_is_no_wish_that_htcondor_could_not_meet() -> None:
    assert drafted("htcondor", 8, nodes=1).words
