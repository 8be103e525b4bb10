"""An environment for each peer, made by pip once and kept under the user's cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: Peer → what pip installs for it. MPI peers bring the same MPI library as ``hpcremote[mpich]``.
REQUIREMENTS = {
    "ipyparallel": ["ipyparallel==9.2.*", "mpi4py", "mpich", "numpy"],
    "dask": ["distributed", "numpy"],
    "futures": ["mpi4py", "mpich"],
}


def cache() -> Path:
    """The folder of the environments."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hpcremote-bench"


def prepare(peer: str) -> Path:
    """Make a peer's environment unless it is there as wanted; return its Python.

    Raises:
        subprocess.CalledProcessError: venv or pip failed; what it said is on stderr.
    """
    folder = cache() / f"{peer}-py{sys.version_info.major}.{sys.version_info.minor}"
    python, stamp = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(REQUIREMENTS[peer]) + "\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"making {folder} ({', '.join(REQUIREMENTS[peer])})", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, stdout=sys.stderr)
    install = [str(python), "-m", "pip", "install", "-qq", *REQUIREMENTS[peer]]
    subprocess.run(install, check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return python
