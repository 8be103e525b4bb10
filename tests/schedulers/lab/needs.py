"""What each part of a lab needs of the machine, and what of it is missing."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

_INSTALL = "`.ci/install`, as root on Debian, installs it"

#: By part: programs or files that show that a package is there, and the package. `.ci/install` has the same.
NEEDS: dict[str, dict[str, str]] = {
    "hosts": {"unshare": "util-linux", "ip": "iproute2"},
    "slurm": {
        "slurmctld": "slurmctld",
        "slurmd": "slurmd",
        "sbatch": "slurm-client",
        "munged": "munge",
        "/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so.2": "libpmix2",
    },
    "torque": {
        "/usr/local/lib/slurm-wlm-torque/usr/bin/qsub": "slurm-wlm-torque (unpacked)",
        "/usr/share/perl5/Switch.pm": "libswitch-perl",
    },
    "sge": {
        "sge_qmaster": "gridengine-master",
        "sge_execd": "gridengine-exec",
        "/usr/lib/gridengine/qsub": "gridengine-client",
    },
    "ssh": {"sshd": "openssh-server", "ssh": "openssh-client"},
}
_STANDS_ON = {"slurm": "hosts", "sge": "hosts", "ssh": "hosts", "torque": "slurm"}

#: What a machine has to allow; everything of it ends with the command.
_TRIAL = "ip link add br0 type bridge && ip link add v0 type veth peer name v1 && mount -t sysfs sysfs /sys"


def missing(part: str) -> str:
    """Say in a sentence why a part cannot be brought up here, or nothing if it can."""
    if part in _STANDS_ON and (why := missing(_STANDS_ON[part])):
        return why
    absent = [package for sign, package in NEEDS[part].items() if not _is_there(sign)]
    if absent:
        return f"{part}: Debian's {', '.join(absent)} not installed; {_INSTALL}"
    return _refusal() if part == "hosts" else ""


def _is_there(sign: str) -> bool:
    # The daemons are in a folder that is not on every user's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return Path(sign).exists() if sign.startswith("/") else shutil.which(sign, path=path) is not None


@functools.cache
def _refusal() -> str:
    if os.geteuid() != 0:
        return "hosts: only root may make network namespaces and bridges"
    words = [
        "unshare",
        "--net",
        "--uts",
        "--ipc",
        "--mount",
        "--pid",
        "--mount-proc",
        "--fork",
        "sh",
        "-c",
        _TRIAL,
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    if done.returncode:
        return f"hosts: this machine refuses namespaces with networks of their own: {done.stderr.strip()}"
    return ""
