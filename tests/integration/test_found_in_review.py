"""What a review of the whole found wrong, once."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

import hpcremote
from hpcremote.errors import NoEnginesRegistered, RemoteError


@pytest.fixture(scope="module")
def rc():
    with hpcremote.Cluster(n=2, profile="local") as client:
        yield client


def test_a_forked_child_that_returns_never_becomes_a_second_engine(rc):
    def fork():
        import os

        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return child != 0, os.getpid()

    parent, pid = rc[0].apply_sync(fork)
    assert parent
    assert [rc[0].apply_sync(os.getpid) for _ in range(20)] == [pid] * 20


def test_map_drops_no_value_when_the_function_raises_stop_iteration(rc):
    def odd(item):
        return next(iter([])) if item == 1 else item

    with pytest.raises(RemoteError, match="StopIteration"):
        rc[:].map_sync(odd, range(8))


def test_map_takes_an_iterator_without_an_end_beside_something_that_has_one(rc):
    assert rc[:].map_sync(pow, range(5), itertools.repeat(2)) == [0, 1, 4, 9, 16]


@pytest.mark.parametrize("nothing", [5, None])
def test_what_cannot_be_dealt_is_named(rc, nothing):
    with pytest.raises(TypeError, match=f"sequence or an iterator, not {nothing}"):
        rc[:].scatter("part", nothing)
    with pytest.raises(TypeError, match=f"sequence or an iterator, not {nothing}"):
        rc[:].map_sync(abs, nothing)


def test_an_array_of_ids_makes_a_view(rc):
    numpy = pytest.importorskip("numpy")
    assert rc[numpy.array([1, 0])].targets == [1, 0]
    assert rc[numpy.int64(1)].targets == 1
    with pytest.raises(TypeError, match="sequence or an iterator"):
        rc[:].scatter("part", numpy.array(3))


def test_an_empty_selection_is_not_taken_for_a_cluster_without_engines(rc):
    with pytest.raises(NoEnginesRegistered, match="names no engine; there are: 0, 1"):
        rc[10:].apply_sync(os.getpid)


def test_a_relative_home_is_the_same_home_for_everybody(tmp_path):
    script = "import hpcremote\nwith hpcremote.Cluster(n=1, profile='local') as rc: print(rc.ids)\n"
    env = {**os.environ, "HPCREMOTE_DIR": "relative/home"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[0]"), done.stderr


def test_a_wrong_setting_is_named(tmp_path):
    env = {**os.environ, "HPCREMOTE_DIR": str(tmp_path)}
    words = [sys.executable, "-m", "hpcremote", "start", "-p", "local", "--set", "n=x"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    assert "n" in done.stderr
    assert "x" in done.stderr
