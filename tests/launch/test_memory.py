"""Shared memory of MPI libraries: found in the maps of processes, removed by name."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcremote.launch import memory
from hpcremote.launch.process import of_pid

SHM = Path("/dev/shm")

pytestmark = pytest.mark.skipif(not os.access(SHM, os.W_OK), reason="no shared memory here")


@pytest.fixture
def segment() -> Iterator[Path]:
    path = SHM / f"hpcremote-test-{os.getpid()} with blanks"
    path.write_bytes(bytes(mmap.PAGESIZE))
    yield path
    path.unlink(missing_ok=True)


def test_what_a_process_has_mapped_is_found(segment: Path) -> None:
    me = of_pid(os.getpid())
    assert str(segment) not in memory.mapped([me])
    with segment.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert str(segment) in memory.mapped([me])
        segment.unlink()  # what is removed while it is mapped needs no removing
        assert str(segment) not in memory.mapped([me])


def test_nothing_is_found_of_a_process_that_has_ended() -> None:
    assert memory.mapped([of_pid(2**22 + 1)]) == ()


def test_only_shared_memory_is_removed(segment: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "file"
    elsewhere.touch()
    memory.remove([str(segment), str(elsewhere), f"{SHM}/../{elsewhere}", f"{SHM}/no-such-file"])
    assert not segment.exists()
    assert elsewhere.exists()
