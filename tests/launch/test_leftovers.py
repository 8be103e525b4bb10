"""Sockets and shared memory that nobody owns any more."""

from __future__ import annotations

import os
import socket

import pytest

from hpcremote import files
from hpcremote.ids import new_uid
from hpcremote.launch import leftovers


@pytest.fixture
def uid():
    return new_uid()


@pytest.fixture
def listener(uid, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.bind(str(tmp_path / f"{uid[:16]}.sock"))
        one.listen()
        yield one


def test_what_a_living_controller_owns_is_left_alone(uid, listener, tmp_path):
    (tmp_path / uid[:16]).mkdir()
    assert leftovers.orphans(tmp_path) == []


def test_what_a_dead_one_left_is_found_and_removed(uid, listener, tmp_path):
    (tmp_path / uid[:16]).mkdir()
    (tmp_path / uid[:16] / "x.out").write_text("last words")
    shm = files.shm_dir(uid)
    assert shm is not None
    files.private_dir(shm)
    listener.close()
    found = leftovers.orphans(tmp_path)
    assert found == [tmp_path / f"{uid[:16]}.sock", tmp_path / uid[:16], shm]
    for path in found:
        leftovers.remove(path)
        leftovers.remove(path)  # gone already: fine
    assert leftovers.orphans(tmp_path) == []
    assert not shm.exists()


def test_other_names_are_not_touched(uid, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "ABCDEF0123456789.sock").write_text("")
    (tmp_path / uid[:16]).mkdir()  # without a socket nothing can be known
    assert leftovers.orphans(tmp_path) == []


def test_what_a_dead_client_left_of_its_tunnel_is_found(tmp_path):
    ticks = files.process_start(os.getpid())
    living, dead = tmp_path / f"tun.{os.getpid()}.{ticks}.0", tmp_path / f"tun.{os.getpid()}.1.0"
    for folder in (living, dead):
        folder.mkdir()
        (folder / "control").touch()
    assert leftovers.orphans(tmp_path) == [dead]
    leftovers.remove(dead)
    assert list(tmp_path.iterdir()) == [living]
