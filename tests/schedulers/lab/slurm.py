"""Slurm on the hosts of a lab: its server on the head, a daemon on each node, and a munge of their own.

On every host /etc/slurm shows our configuration, so commands and jobs need nothing in their environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.schedulers.lab.hosts import Host, Hosts
from tests.schedulers.lab.keeper import PATIENCE

_TEMPLATE = Path(__file__).with_name("templates") / "slurm.conf"
#: Nothing here uses cgroups, but slurmd ends at its start where it finds none and is not told the version.
_CGROUPS = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
#: Where Slurm's `srun --mpi=pmix` looks for libpmix.so, a name that only a package for developers has.
_PMIX = Path("/usr/lib/x86_64-linux-gnu/pmix2/lib")


class Slurm:
    """A running Slurm.

    Its partitions: ``debug``, the default; ``high``, whose jobs push those of others aside; ``short``, for up
    to 5 minutes; ``closed``, which takes jobs and starts none.

    Args:
        hosts: where it runs.
        cpus: of each node, as far as Slurm knows.
        node_timeout: seconds of silence after which a node is down; it is noticed some 20 s later. Much
            shorter, and a busy machine loses nodes. With :meth:`lose` nobody has to wait.

    Attributes:
        hosts: where it runs.
        folder: its configuration, logs and spools.
    """

    def __init__(self, hosts: Hosts, cpus: int = 8, node_timeout: int = 20) -> None:
        self.hosts = hosts
        self.folder = hosts.path / "slurm"
        self._configure(cpus, node_timeout)
        self._start_munge()
        hosts.head.at_boot(self._boot_head)
        for node in hosts.nodes:
            node.at_boot(self._boot_node)
        self.wait_for_nodes()

    def _configure(self, cpus: int, node_timeout: int) -> None:
        nodes = [node.name for node in self.hosts.nodes]
        for name in ("etc", "controller", "munge", *(f"spool.{node}" for node in nodes)):
            (self.folder / name).mkdir(parents=True)
        text = _TEMPLATE.read_text().format(
            head=self.hosts.head.name,
            folder=self.folder,
            nodes=",".join(nodes),
            cpus=cpus,
            node_timeout=node_timeout,
        )
        (self.folder / "etc" / "slurm.conf").write_text(text)
        (self.folder / "etc" / "cgroup.conf").write_text(_CGROUPS)
        if _PMIX.exists():
            shutil.copytree(_PMIX, self.folder / "pmix", symlinks=True)
            if not (library := self.folder / "pmix" / "libpmix.so").exists():
                library.symlink_to("libpmix.so.2")

    def _start_munge(self) -> None:
        # One for all hosts: its socket is a file, and what it signs names no address.
        folder = self.folder / "munge"
        (folder / "key").touch(0o600)
        (folder / "key").write_bytes(os.urandom(128))
        named = {
            "socket": "socket",
            "key-file": "key",
            "pid-file": "pid",
            "seed-file": "seed",
            "log-file": "log",
        }
        files = [f"--{option}={folder / name}" for option, name in named.items()]
        self.hosts.serve_from_switch(["munged", "--num-threads=2", *files])

    def _boot_head(self, host: Host) -> None:
        self._mount(host)
        host.run(["slurmctld"], cwd=Path("/"), check=True)

    def _boot_node(self, host: Host) -> None:
        self._mount(host)
        host.run(["slurmd"], cwd=Path("/"), check=True)

    def _mount(self, host: Host) -> None:
        places = {self.folder / "etc": Path("/etc/slurm"), self.folder / "pmix": _PMIX}
        for ours, place in places.items():
            if ours.exists():
                host.run(["mount", "--bind", ours, place], cwd=Path("/"), check=True)

    # ------------------------------------------------------------ use

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the head; options are those of :meth:`Host.run`."""
        return self.hosts.head.run(words, **options)

    def submit(self, script: str, *options: str, cwd: Path | None = None) -> str:
        """Submit the text of a script with ``sbatch``, and return the id of the job."""
        done = self.run("sbatch", "--parsable", *options, input=script, cwd=cwd, check=True)
        return done.stdout.strip().split(";")[0]

    def job(self, job: str) -> dict[str, str]:
        """Return what ``scontrol`` knows of a job: ``JobState``, ``Reason``, ``ExitCode``, ``NodeList``..."""
        text = self.run("scontrol", "--oneliner", "show", "job", job, check=True).stdout
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait_for(self, job: str, *states: str, seconds: float = 2 * PATIENCE) -> dict[str, str]:
        """Wait until a job is in one of *states* (``RUNNING``, ...), and return what is known of it."""
        deadline = time.monotonic() + seconds
        while (known := self.job(job))["JobState"] not in states:
            assert time.monotonic() < deadline, (
                f"job {job} is not {' or '.join(states)} but {known}\n{self.log()}"
            )
            time.sleep(0.1)
        return known

    def jobs(self) -> list[str]:
        """Return the ids of jobs that wait or run, or whose last processes are being ended."""
        return self.run("squeue", "-h", "-o", "%A", check=True).stdout.split()

    def cancel(self, job: str) -> None:
        """Cancel a job, as its user does."""
        self.run("scancel", job, check=True)

    def expire(self, job: str) -> None:
        """Have a job reach its limit, of else whole minutes, at Slurm's next look, in up to 30 s."""
        soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 2))
        self.run("scontrol", "update", f"JobId={job}", f"EndTime={soon}", check=True)

    def lose(self, node: Host) -> None:
        """Tell Slurm that a node is down, which it would notice of itself only after a while."""
        self.run("scontrol", "update", f"NodeName={node.name}", "State=DOWN", "Reason=lost", check=True)

    def clear(self) -> None:
        """Cancel all jobs, wait until they are gone, and have all nodes back."""
        if jobs := self.jobs():
            self.run("scancel", *jobs)
        deadline = time.monotonic() + 2 * PATIENCE
        while left := self.jobs():
            assert time.monotonic() < deadline, f"jobs {left} do not end\n{self.log()}"
            time.sleep(0.1)
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        """Wait until every node can take jobs."""
        wanted = {node.name for node in self.hosts.nodes}
        deadline = time.monotonic() + 2 * PATIENCE
        while (ready := self._ready()) != wanted:
            assert time.monotonic() < deadline, f"nodes {wanted - ready} are not ready\n{self.log()}"
            for name in self._down():
                self.run("scontrol", "update", f"NodeName={name}", "State=RESUME")
            time.sleep(0.1)

    def _ready(self) -> set[str]:
        # A node that Slurm has not heard of for a while still has its old state.
        return self._nodes("idle,mix,alloc", "--responding")

    def _down(self) -> set[str]:
        # Also one that was down before it was heard of again: it is asked again only when it is to resume.
        return self._nodes("down,drain")

    def _nodes(self, states: str, *options: str) -> set[str]:
        done = self.run("sinfo", "-h", *options, "-N", "-p", "debug", "-t", states, "-o", "%N", seconds=60)
        return set(done.stdout.split())

    def log(self, lines: int = 20) -> str:
        """Return the last lines of the logs of all daemons."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            parts += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(parts)
