from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hpcremote.errors import PayloadError
from hpcremote.ids import new_uid
from hpcremote.net.shm import ALIGN, read_blob, remove_blob, write_blob

PIECES = [b"a" * 70_001, bytearray(b"b" * 65_536), np.arange(10_000.0).data]
SIZES = [memoryview(piece).nbytes for piece in PIECES]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path)


def plain(pieces: list[memoryview]) -> list[bytes]:
    return [bytes(piece) for piece in pieces]


def test_what_was_written_is_read(folder: str) -> None:
    name = write_blob(folder, PIECES)
    assert plain(read_blob(folder, name, SIZES, unlink=False)) == [bytes(piece) for piece in PIECES]
    assert stat.S_IMODE((Path(folder) / name).stat().st_mode) == 0o600


def test_pieces_are_aligned_and_writable_and_each_reader_has_its_own(folder: str) -> None:
    name = write_blob(folder, PIECES)
    first, second = (read_blob(folder, name, SIZES, unlink=False) for _ in range(2))
    for piece in first:
        assert np.frombuffer(piece, np.uint8).ctypes.data % ALIGN == 0
        piece[:3] = b"new"
    assert [bytes(piece[:3]) for piece in first] == [b"new"] * 3
    assert plain(second) == [bytes(piece) for piece in PIECES]
    assert plain(read_blob(folder, name, SIZES, unlink=False)) == [bytes(piece) for piece in PIECES]


def test_memory_outlives_the_name(folder: str) -> None:
    name = write_blob(folder, PIECES)
    pieces = read_blob(folder, name, SIZES, unlink=True)
    assert os.listdir(folder) == []
    assert plain(pieces) == [bytes(piece) for piece in PIECES]


def test_reading_leaves_no_descriptor_behind(folder: str) -> None:
    name = write_blob(folder, PIECES)
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        read_blob(folder, name, SIZES, unlink=False)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_more_blobs_may_be_held_than_files_opened(folder: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (400, before[1]))
    try:
        name = write_blob(folder, [b"x" * 70_000])
        held = [read_blob(folder, name, [70_000], unlink=False) for _ in range(500)]
        assert all(bytes(piece[-2:]) == b"xx" for (piece,) in held)
        held[-1][0][:3] = b"new"
        assert bytes(held[-2][0][:3]) == b"xxx"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    "name", ["", "../secret", "a/b", "A" * 32, "a" * 31, "a" * 33, "a" * 31 + "\n", "\0" * 32]
)
def test_only_names_of_blobs_are_names(folder: str, name: str) -> None:
    (Path(folder).parent / "secret").write_bytes(b"x" * 70_000)
    with pytest.raises(PayloadError, match="not the name"):
        read_blob(folder, name, [70_000], unlink=True)
    remove_blob(folder, name)
    assert (Path(folder).parent / "secret").exists()


def test_a_blob_that_is_not_there_or_too_short(folder: str) -> None:
    with pytest.raises(PayloadError, match="cannot be read: No such file"):
        read_blob(folder, new_uid(), [70_000], unlink=True)
    name = write_blob(folder, [b"x" * 70_000])
    for sizes in ([70_000, 70_000], [1 << 62], [1 << 70]):
        with pytest.raises(PayloadError, match="shorter than announced"):
            read_blob(folder, name, sizes, unlink=False)
    with pytest.raises(PayloadError, match="empty"):
        read_blob(folder, name, [], unlink=False)


def test_no_blob_is_followed_out_of_the_folder(folder: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"x" * 70_000)
    name = new_uid()
    (Path(folder) / name).symlink_to(outside)
    with pytest.raises(PayloadError, match="cannot be read"):
        read_blob(folder, name, [70_000], unlink=False)


def test_removing_twice_is_fine(folder: str) -> None:
    name = write_blob(folder, PIECES)
    remove_blob(folder, name)
    remove_blob(folder, name)
    remove_blob("", name)
    assert os.listdir(folder) == []


def test_no_folder_means_no_blob(tmp_path: Path) -> None:
    assert write_blob(str(tmp_path / "gone"), PIECES) == ""


def test_no_room_means_no_blob_and_no_remains(folder: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        assert write_blob(folder, [b"x" * 70_000, b"y" * 70_000]) == ""
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, former)
    assert os.listdir(folder) == []


def test_an_interrupt_leaves_no_remains(folder: str) -> None:
    """Ctrl-C while gigabytes are written: what was written would be lost memory until the cluster ends."""
    code = """
import os, signal, sys
from hpcremote.net.shm import write_blob

def pieces():
    yield b"x" * 70_000
    os.kill(os.getpid(), signal.SIGINT)
    yield b"y" * 70_000

try:
    write_blob(sys.argv[1], pieces())
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=30)
    assert done.stdout == "interrupted\n", done.stderr
    assert os.listdir(folder) == []
