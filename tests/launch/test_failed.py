"""What is written down of a start that failed, and until when."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from hpcremote import clusters, files, profile
from hpcremote.errors import ClusterNotFound, LaunchError
from hpcremote.launch import failed, record, startup
from hpcremote.launch.record import Record

SAID = "slurm did not take the job:\nsbatch: error: invalid partition specified: nosuch"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))


def begun() -> Record:
    return startup.Startup(profile.Profile("p", launcher="local"), "a", 2).record


def fail(what: Record, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, failed.noted(what):
        raise error
    assert caught.value is error


def test_a_start_that_failed_is_told_until_the_next():
    first = begun()
    record.claim(first)
    fail(first, LaunchError(SAID))
    seen = clusters.status("p", "a")
    assert (seen.condition, seen.failure) == ("starting", "")  # what there is of it is ended first
    record.forget(first, keep_logs=True)

    seen = clusters.status("p", "a")
    assert (seen.condition, seen.n, seen.host, seen.failure) == ("failed", 2, first.host, SAID)
    assert not seen.running
    assert seen.failed is not None and seen.failed >= seen.started == first.started
    (path,) = record.log_folder(first.folder).iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ClusterNotFound):
        clusters.time_left("p", "a")

    second = begun()
    record.claim(second)
    record.forget(second)
    with pytest.raises(ClusterNotFound):
        clusters.status("p", "a")


def test_an_interrupt_and_a_cluster_that_runs_already_are_no_failed_start():
    first, second = begun(), begun()
    fail(first, LaunchError("nothing has begun"))
    assert not first.folder.exists()
    record.claim(first)
    fail(second, LaunchError("that one lives"))
    fail(first, KeyboardInterrupt())
    assert failed.read(first.folder) is None


def test_a_full_disk_hides_no_error(monkeypatch):
    first = begun()
    record.claim(first)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        fail(first, LaunchError(SAID))
    assert failed.read(first.folder) is None


def test_what_is_damaged_tells_nothing():
    first = begun()
    record.claim(first)
    for text in (b"{", b"[]", b'{"said": 1}'):
        files.write_private(record.log_folder(first.folder) / "failed.json", text)
        assert failed.read(first.folder) is None
