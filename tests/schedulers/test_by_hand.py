"""The command that brings a lab up for a developer, lets them in, and takes it down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.support import ROOT, environment
from tests.schedulers.lab.hosts import Hosts

_LAB = [sys.executable, "-m", "tests.schedulers.lab"]


def lab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_LAB, *words], text=True, capture_output=True, timeout=60, cwd=ROOT, env=environment(),
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_up_enter_down(hosts: Hosts) -> None:
    up = subprocess.Popen([*_LAB, "up", "--nodes", "1"], text=True, stdout=subprocess.PIPE, cwd=ROOT)
    assert up.stdout is not None
    said = up.stdout.readline()
    try:
        assert said.startswith("up after ")
        path = Path(said.split()[-1])
        entered = lab("enter", "node1", "sh", "-c", "hostname; pwd; exit 3")
        assert (entered.stdout, entered.returncode) == (f"node1\n{ROOT}\n", 3)
        assert lab("enter", "node7").stderr == "node7: no such host; there are head, node1\n"
        assert lab("down").stdout.startswith(f"ending {path}\n")
        assert not path.exists()
        assert hosts.path.exists()  # those of tests are not its business
        assert up.wait(30) == 0
    finally:
        up.kill()
        up.communicate()


def test_a_part_that_does_not_exist(hosts: Hosts) -> None:
    assert lab("up", "slrum").stderr == "slrum: no such part; there are slurm, torque, sge, ssh\n"
