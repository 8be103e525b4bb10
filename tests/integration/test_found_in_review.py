"""What a review of the whole found wrong, once."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

import hpcremote
from hpcremote.errors import (
    CompositeError,
    EngineError,
    NoEnginesRegistered,
    NotConnected,
    ProfileError,
    RemoteError,
)


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


def test_a_syntax_error_shows_the_users_code_and_no_frame_of_a_parser(rc, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("x = = 1\n")
    for submit in (lambda: rc[0].execute("x = = 1", block=True), lambda: rc[0].run(path, block=True)):
        with pytest.raises(RemoteError) as caught:
            submit()
        assert isinstance(caught.value.__cause__, SyntaxError)
        assert "x = = 1" in caught.value.traceback
        assert "in parse" not in caught.value.traceback
        assert "compile(" not in caught.value.traceback


@pytest.mark.parametrize(("name", "near"), [("blok", "block"), ("target", "targets"), ("lable", "label")])
def test_a_mistyped_flag_is_an_error_with_the_nearest_right_one(rc, name, near):
    view = rc[:]
    with pytest.raises(AttributeError, match=f"no attribute {name!r} .*did you mean {near!r}"):
        setattr(view, name, True)
    with pytest.raises(KeyError, match=f"did you mean {near!r}"):
        view.set_flags(**{name: True})
    with pytest.raises(KeyError, match=f"did you mean {near!r}"), view.temp_flags(**{name: True}):
        pass


def test_what_may_be_set_on_views_and_clients_still_can_be(rc):
    view = rc[:]
    view.block, view.track, view.label, view.targets = True, True, "mine", [1]
    assert (view.block, view.track, view.label, view.targets) == (True, True, "mine", [1])
    view["blok"] = 5  # a name on the engines
    assert view["blok"] == [5]
    rc.block = False
    with pytest.raises(AttributeError, match="Client has no attribute 'blok' .*did you mean 'block'"):
        rc.blok = True


def test_a_name_that_is_nowhere_is_said_once(rc):
    for pull in (lambda: rc[:].pull("nowhere", block=True), lambda: rc[:]["nowhere"]):
        with pytest.raises(CompositeError) as caught:
            pull()
        assert "2 engines: NameError(name 'nowhere' is not defined) on engines 0-1" in caught.value.msg


def test_a_client_whose_cluster_ended_does_not_say_that_there_are_no_engines():
    cluster = hpcremote.Cluster(n=1, profile="local")
    cluster.start()
    rc = cluster.connect_client()
    view = rc[:]
    assert rc.ids == [0]
    cluster.stop()
    assert rc.link.wait(lambda: rc.link.lost is not None, 30)
    for ask in (lambda: rc.ids, lambda: len(rc), lambda: rc[:], lambda: rc[0], lambda: list(rc), rc.info):
        with pytest.raises(NotConnected, match="went away.*a new Client connects again"):
            ask()
    with pytest.raises(NotConnected, match="went away"):
        view.apply_sync(os.getpid)
    assert "not connected" in repr(rc)
    assert bool(rc)
    rc.close()


def test_of_a_crashed_engine_the_users_frames_are_shown():
    with hpcremote.Cluster(n=1, profile="local") as rc:
        with pytest.raises(EngineError, match="SIGSEGV") as caught:
            rc[0].apply_sync(lambda: __import__("ctypes").string_at(0))
        assert "<lambda>" in caught.value.output
        assert "hpcremote/engine" not in caught.value.output
        assert "Thread 0x" not in caught.value.output


def test_no_shared_memory_is_left_of_a_call_that_could_not_be_made(rc):
    big = bytearray(1 << 22)
    before = set(os.listdir(rc.link.welcome.shm))
    with pytest.raises(TypeError):  # the second engine's part is none
        rc.link.submit([0, 1], "push", [[b"x", big], [b"x", 3]], sink=None)
    with pytest.raises(TypeError, match="a label is text"):
        rc[0].call(len, (big,), label=object())
    assert set(os.listdir(rc.link.welcome.shm)) == before


def test_ipython_shows_where_the_user_called_and_no_frame_of_ours(rc):
    def divide():
        return 1 / 0

    with pytest.raises(RemoteError) as caught:
        rc[0].apply_sync(divide)
    text = "\n".join(caught.value._render_traceback_())
    assert "rc[0].apply_sync(divide)" in text
    assert "return 1 / 0" in text
    assert "hpcremote/client" not in text
    with pytest.raises(NoEnginesRegistered) as caught:
        rc[5:].apply_sync(divide)
    lines = caught.value._render_traceback_()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == [
        "    rc[5:].apply_sync(divide)",
        "NoEnginesRegistered: this view names no engine; there are: 0, 1",
    ]


def test_a_wrong_return_when_is_told_although_the_result_is_there(rc):
    there = rc[:].apply_async(abs, -1)
    there.wait()
    with pytest.raises(ValueError, match="return_when is ALL_COMPLETED, .* not 'first'"):
        there.get(return_when="first")


def test_objects_with_slots_keep_them_and_come_home(rc):
    class Base:
        __slots__ = ("a",)

    class Both(Base):
        __slots__ = ("__dict__", "b")

    class One(Base):
        __slots__ = "c"

    for kind, names in ((Base, "a"), (One, "ac"), (Both, "abd")):
        thing = kind()
        for name in names:
            setattr(thing, name, name.upper())
        there, had_dict = rc[0].apply_sync(lambda thing: (thing, hasattr(thing, "__dict__")), thing)
        assert type(there) is kind
        assert [getattr(there, name) for name in names] == list(names.upper())
        assert had_dict == (kind is Both)


@pytest.mark.parametrize("wanted", [None, "2", 2.0])
def test_how_many_engines_to_wait_for_is_a_number(rc, wanted, monkeypatch):
    monkeypatch.setattr(rc, "cluster", None)
    with pytest.raises(TypeError, match=f"how many engines to wait for, not {wanted!r}"):
        rc.wait_for_engines(wanted, timeout=1)


def test_scatter_takes_a_name(rc):
    with pytest.raises(TypeError, match="names are strings, not 5"):
        rc[:].scatter(5, [1, 2])


@pytest.mark.parametrize(
    ("name", "instead"), [("engines", "profile='mpi'"), ("engine_timeout", "'start_timeout'")]
)
def test_arguments_of_another_cluster_class_are_answered(name, instead):
    with pytest.raises(ProfileError, match=rf"Cluster\(\) has no argument '{name}': .*{instead}"):
        hpcremote.Cluster(n=2, **{name: "mpi"})


def test_large_results_that_nobody_holds_are_let_go(rc):
    def ones():
        import numpy

        return numpy.ones(1_000_000)

    def mapped():
        with open("/proc/self/maps") as maps:
            return sum(rc.link.welcome.shm in line for line in maps)

    before = mapped()
    held = rc[:].apply_sync(ones)
    assert mapped() == before + 2
    for _ in range(3):
        rc[:].apply_sync(ones)
        rc[:].apply_async(ones).get()
    assert mapped() == before + 2
    del held
    assert mapped() == before
