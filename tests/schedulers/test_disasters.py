"""What ends a job from outside is told in words, whatever started its engines.

Here the clusters of several launchers run side by side, since each of these takes its time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.schedulers import sites
from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.sites import Site
from tests.schedulers.users import Prompt

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(400)]


#: Torque's commands over Slurm do not tell why; a controller in the job goes, too, and calls fail anyhow.
_OVER = {
    "torque": "^EngineError: .*its job was ended by its scheduler",
    "slurm-all-in-job": "job was ended by its scheduler|went away",
}


@pytest.fixture
def several(request: pytest.FixtureRequest, hosts: Hosts, tmp_path: Path) -> Iterator[Several]:
    with contextlib.ExitStack() as stack:
        made = Several(request, hosts, tmp_path, stack)
        yield made
        made.stop()


class Several:
    """Users of several launchers."""

    def __init__(
        self, request: pytest.FixtureRequest, hosts: Hosts, folder: Path, stack: contextlib.ExitStack
    ) -> None:
        self._request, self._hosts, self._folder, self._stack = request, hosts, folder, stack
        self._sites: list[Site] = []

    def start(self, wanted: Mapping[str, dict[str, Any]]) -> dict[str, tuple[Site, Prompt]]:
        """Start clusters of two engines, one on node1 and one on node2, each busy with a call of ten minutes.

        Args:
            wanted: the launchers, each with more keys for its profile.
        """
        made = [self.site(name) for name in wanted]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: one.start_two(**wanted[one.name]), made))
        found = {one.name: (one, self._stack.enter_context(one.prompt())) for one in made}
        for _, prompt in found.values():
            prompt("calls = [rc[i].apply_async(time.sleep, 600) for i in rc.ids]")
        return found

    def site(self, name: str) -> Site:
        """Return a user of one launcher."""
        folder = self._folder / name
        folder.mkdir()
        made = self._stack.enter_context(sites.site(self._request, self._hosts, folder, name))
        self._sites.append(made)
        return made

    def stop(self) -> None:
        """Stop all that runs, side by side."""
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda one: one.user.clear(), self._sites))


def test_a_node_loses_power(several: Several, hosts: Hosts, slurm: Slurm) -> None:
    """Nobody is told; the engines there are missed, and what the scheduler knows is told with them."""
    once = {"directives": ["--no-requeue"]}
    wanted = {"slurm-srun": {}, "slurm-mpiexec": once, "slurm-all-in-job": once}
    wanted["torque"] = {"directives": ["-r n"]}
    running = several.start({**wanted, "sge": {}, "hosts-mpiexec": {}, "hosts-ssh": {}})
    for _, prompt in running.values():
        (lost,) = prompt("[info.id for info in rc.link.engines.values() if info.host == 'node2']")
        prompt.tell(f"fate(calls[{lost}])")
    hosts["node2"].power_off()
    slurm.lose(hosts["node2"])
    told = {name: prompt.hear()[0] for name, (_, prompt) in running.items()}
    _, prompt = running["slurm-srun"]  # Slurm starts it again elsewhere, under the same ids
    assert prompt("rc.wait_for_engines(2, timeout=90)") is None
    assert prompt("[(info.id, info.host) for info in rc.link.engines.values()]") == [
        [0, "node1"],
        [1, "node3"],
    ]
    hosts["node2"].power_on()  # so that all can be ended

    # A controller in the job goes with it; what became of that is known to the scheduler.
    said = told.pop("slurm-all-in-job")
    assert said.startswith(("EngineError: ", "NotConnected: ")), said
    assert "went away" in said or "ended by its scheduler" in said, said
    said = running["slurm-all-in-job"][0].user.hpcremote("status").stdout
    assert "ended: a node failed (NodeDown)" in said, said
    for said in told.values():
        assert said.startswith("EngineError: engine "), said
        assert "on node2)" in said, said
    assert "has ended: a node failed (NodeDown)" in told["slurm-mpiexec"]
    assert re.search(r"job \d+ \(slurm\) (is ending|was put back .*): a node failed", told["slurm-srun"])
    for name in ("sge", "hosts-mpiexec", "hosts-ssh"):
        assert "its connection was lost (killed, or its host or network failed)" in told[name], told[name]


def test_the_time_limit_is_reached(several: Several, slurm: Slurm) -> None:
    """Each call fails with the end of its job, as far as the scheduler's commands tell it."""
    names = ("slurm-srun", "slurm-mpiexec", "slurm-all-in-job", "torque")
    running = several.start({**{name: {} for name in names}, "sge": {"walltime": "0:00:40"}})
    for job in slurm.jobs():
        slurm.expire(job)
    for _, prompt in running.values():
        prompt.tell("[fate(call)[0] for call in calls]")
    for name, (site, prompt) in running.items():
        for said in prompt.hear():
            assert re.search(
                _OVER.get(name, r"^EngineError: .*; job \d+ \(\w+\) has ended: its walltime"), said
            ), said
        if name != "torque":
            assert "ended: its walltime was over" in site.user.hpcremote("status").stdout
