"""comm() where there is no MPI."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpcremote.engine.comm import current
from hpcremote.errors import HPCRemoteError


def test_without_mpi_it_says_what_it_needs() -> None:
    with pytest.raises(HPCRemoteError, match=r"hpcremote\.comm\(\) works inside a call on MPI engines"):
        current.comm()


def test_asking_loads_no_mpi() -> None:
    program = (
        "import sys, hpcremote.engine.comm.current, hpcremote.engine.comm.record\n"
        "print('mpi4py' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False\n"
