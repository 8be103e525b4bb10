"""Grid Engine on the hosts of a lab: its server on the head, an execution daemon on each node.

On every host /var/lib/gridengine/default, the cell that Debian's commands use when nobody says otherwise, is
ours, so commands and jobs need nothing in their environment.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.schedulers.lab.hosts import Host, Hosts
from tests.schedulers.lab.keeper import PATIENCE

_TEMPLATES = Path(__file__).with_name("templates") / "gridengine"
_SHARE = Path("/usr/share/gridengine")
_TOOLS = Path("/usr/lib/gridengine")
_CELL = Path("/var/lib/gridengine/default")
_DAEMONS = {"SGE_ROOT": str(_CELL.parent), "SGE_CELL": _CELL.name}  # commands know it without being told
#: Parallel environments, and how each deals slots out to hosts.
_ENVIRONMENTS = {"smp": "$pe_slots", "mpi": "$round_robin", "fill": "$fill_up"}

#: What differs from the package's cluster configuration.
_CLUSTER = {
    "min_uid": "0",  # root may submit
    "min_gid": "0",
    "load_report_time": "00:00:02",  # how soon a daemon that has started counts
    "max_unheard": "00:00:30",
    "mailer": "/bin/true",
    "shell_start_mode": "unix_behavior",  # a script's first line says what runs it
    "execd_params": "ENABLE_ADDGRP_KILL=TRUE",  # who left its process group ends with the job, except root's
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false"
    " sharelog=00:00:00 accounting_flush_time=00:00:00",
}
#: What differs from the built-in configuration of the scheduler: no waiting, and no queue is ever too loaded.
_SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
    "schedd_job_info": "true",  # qstat -j says why a job waits
}


class GridEngine:
    """A running Grid Engine with one queue, ``all.q``, and the parallel environments smp, mpi and fill.

    Args:
        hosts: where it runs.
        slots: of each node.

    Attributes:
        hosts: where it runs.
        folder: its cell, spools and logs.
    """

    def __init__(self, hosts: Hosts, slots: int = 8) -> None:
        self.hosts = hosts
        self.folder = hosts.path / "gridengine"
        self._write_cell()
        for host in hosts:
            host.at_boot(self._mount)
        self._fill_database()
        hosts.head.at_boot(self._boot_head)
        self._configure(slots)
        with ThreadPoolExecutor() as pool:  # each takes its seconds to go into the background
            list(pool.map(lambda node: node.at_boot(self._boot_node), hosts.nodes))
        self.wait_for_nodes()

    def _write_cell(self) -> None:
        common = self.folder / "cell" / "common"
        common.mkdir(parents=True)
        for name in ("spooldb", "qmaster/job_scripts", "execd", "forms/hosts", "forms/parallel"):
            (self.folder / name).mkdir(parents=True)
        (common / "bootstrap").write_text(_form("bootstrap", folder=self.folder))
        (common / "act_qmaster").write_text(self.hosts.head.name + "\n")
        (common / "cluster_name").write_text("lab\n")

    def _mount(self, host: Host) -> None:
        host.run(["mount", "--bind", self.folder / "cell", _CELL], cwd=Path("/"), check=True)

    def _fill_database(self) -> None:
        """Write what the server can find there when it starts: to tell it later takes much longer."""
        forms = self.folder / "forms"
        changes = {**_CLUSTER, "execd_spool_dir": str(self.folder / "execd")}
        (forms / "cluster").write_text(_changed((_SHARE / "default-configuration").read_text(), changes))
        for host in self.hosts:
            (forms / "hosts" / host.name).write_text(f"hostname {host.name}\n")
        for name, rule in _ENVIRONMENTS.items():
            (forms / "parallel" / name).write_text(_form("parallel", name=name, rule=rule))
        database = ("berkeleydb", "libspoolb", self.folder / "spooldb")
        self.run(_TOOLS / "spoolinit", *database, "init", env=_DAEMONS, check=True)
        for words in (
            ("configuration", forms / "cluster"),
            ("complexes", _SHARE / "util/resources/centry"),
            ("usersets", _SHARE / "util/resources/usersets"),
            ("managers", "root"),
            ("adminhosts", forms / "hosts"),
            ("submithosts", forms / "hosts"),
            ("pes", forms / "parallel"),
        ):
            self.run(_TOOLS / "spooldefaults", *words, env=_DAEMONS, check=True)

    def _boot_head(self, host: Host) -> None:
        host.run(["sge_qmaster"], env=_DAEMONS, cwd=Path("/"), check=True)
        self._until(lambda: self.run("qconf", "-sh").returncode == 0, "sge_qmaster does not answer")

    def _boot_node(self, host: Host) -> None:
        host.run(["sge_execd"], env=_DAEMONS, cwd=Path("/"), check=True)

    def _configure(self, slots: int) -> None:
        nodes = " ".join(node.name for node in self.hosts.nodes)
        self._give("-Msconf", _changed(self.run("qconf", "-ssconf", check=True).stdout, _SCHEDULER))
        self._give("-Aq", _form("queue", name="all.q", nodes=nodes, slots=slots))

    def _give(self, option: str, text: str) -> None:
        form = self.folder / "forms" / "form"
        form.write_text(text)
        self.run("qconf", option, form, check=True)

    # ------------------------------------------------------------ use

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the head; options are those of :meth:`Host.run`."""
        return self.hosts.head.run(words, **options)

    def submit(self, script: str, *options: str, cwd: Path) -> str:
        """Submit the text of a script with ``qsub``, to run in *cwd*, and return the id of the job."""
        words = ("qsub", "-terse", "-cwd", *options)
        return self.run(*words, input=script, cwd=cwd, check=True).stdout.strip().split(".")[0]

    def state(self, job: str) -> str:
        """Return a job's state as ``qstat`` has it, such as ``qw`` or ``r``; nothing when it has ended."""
        return next((row[4] for row in self._rows() if row[0] == job), "")

    def jobs(self) -> list[str]:
        """Return the ids of jobs that wait or run."""
        return [row[0] for row in self._rows()]

    def cancel(self, job: str) -> None:
        """Delete a job, as its user does."""
        self.run("qdel", job, check=True)

    def _rows(self) -> list[list[str]]:
        lines = self.run("qstat", "-u", "*", check=True).stdout.splitlines()
        return [line.split() for line in lines[2:]]  # after the heading and its rule

    def wait_for(self, job: str, *states: str) -> str:
        """Wait until a job is in one of *states*, and return which. The state of what has ended is ``""``."""
        self._until(
            lambda: self.state(job) in states, f"job {job} is in state {self.state(job)!r}, not {states}"
        )
        return self.state(job)

    def account(self, job: str) -> dict[str, str]:
        """Return what ``qacct`` says of a job that has ended: ``exit_status``, ``failed``, ``hostname``..."""
        self._until(lambda: self.run("qacct", "-j", job).returncode == 0, f"nothing is known of job {job}")
        lines = [line.split(None, 1) for line in self.run("qacct", "-j", job, check=True).stdout.splitlines()]
        return {line[0]: line[1].strip() for line in lines if len(line) == 2}

    def drain(self, *nodes: str) -> None:
        """Let *nodes* have no new jobs until :meth:`clear`."""
        self.run("qmod", "-d", *(f"all.q@{node}" for node in nodes), check=True)

    def clear(self) -> None:
        """Delete all jobs, wait until they are gone, and have all nodes back."""
        self.run("qdel", "-u", "*")
        self.run("qmod", "-e", "all.q", check=True)
        self._until(lambda: not self.run("qstat", "-u", "*", check=True).stdout, "jobs do not end")
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        """Wait until every node can take jobs."""
        wanted = {node.name for node in self.hosts.nodes}
        self._until(lambda: self._ready() == wanted, f"not all of {wanted} are ready")

    def _ready(self) -> set[str]:
        rows = [
            line.split() for line in self.run("qstat", "-f").stdout.splitlines() if line.startswith("all.q@")
        ]
        return {row[0].split("@")[1] for row in rows if len(row) == 5}  # a sixth word says what is wrong

    def _until(self, what: Callable[[], bool], why: str) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while not what():
            assert time.monotonic() < deadline, f"{why}\n{self.log()}"
            time.sleep(0.1)

    def log(self, lines: int = 20) -> str:
        """Return what Grid Engine says of its hosts, and the last lines of the logs of all daemons."""
        parts = [self.run("qstat", "-f").stdout]
        for path in sorted(self.folder.glob("**/messages")):
            parts += [f"--- {path}", *path.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(parts)


def _form(template: str, **words: object) -> str:
    return (_TEMPLATES / template).read_text().format(**words)


def _changed(text: str, changes: dict[str, str]) -> str:
    """Return a configuration with other values for some of its names."""
    for name, value in changes.items():
        text, found = re.subn(rf"(?m)^{name}(\s+).*$", rf"{name}\g<1>{value}", text)
        assert found == 1, f"Grid Engine has no {name}"
    return text
