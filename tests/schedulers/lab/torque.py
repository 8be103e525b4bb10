"""The commands of Torque over a lab's Slurm: Debian's ``qsub``, ``qstat``, ``qdel`` written for that purpose.

They take Torque's syntax (``-l nodes=2:ppn=2,walltime=...``), and are no proof of OpenPBS's (``-l select=``).
Their package cannot be installed beside Grid Engine's commands of the same names, so it is only unpacked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.schedulers.lab.slurm import Slurm

#: Where `.ci/install` unpacks the package.
UNPACKED = Path("/usr/local/lib/slurm-wlm-torque/usr/bin")
_SLURMS = ("sbatch", "salloc", "srun", "scancel", "scontrol", "squeue", "sinfo")


class Torque:
    """Torque's commands, first on the PATH of who uses :attr:`env`.

    Until it is closed all jobs have PBS's variables, those that ``sbatch`` submits too.

    Attributes:
        slurm: what runs the jobs.
        env: the environment for commands, on any host.
        folder: the commands.
    """

    def __init__(self, slurm: Slurm) -> None:
        self.slurm = slurm
        self.folder = folder = slurm.hosts.path / "torque"
        # The commands look for Slurm's beside themselves.
        shutil.copytree(UNPACKED, folder)
        for name in _SLURMS:
            (folder / name).symlink_to(Path("/usr/bin") / name)
        self.env = {"PATH": f"{folder}:{os.environ['PATH']}"}
        self._plugins = slurm.folder / "etc" / "plugstack.conf"
        self._plugins.write_text("optional spank_pbs.so\n")

    def close(self) -> None:
        """Have jobs no longer look like PBS's, news to the tests of Slurm. Twice does no harm."""
        if self.folder.exists():
            self._plugins.unlink()
            shutil.rmtree(self.folder)

    def __enter__(self) -> Torque:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the head; options are those of :meth:`Host.run`."""
        return self.slurm.run(*words, env=self.env, **options)
