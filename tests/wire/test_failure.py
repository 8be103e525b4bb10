"""Exceptions there and back."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.errors import EngineError, HPCRemoteError, PayloadError, RemoteError, UnmetDependency
from hpcremote.wire import failure

INFO = {"engine_id": 3, "rank": 3, "host": "node7"}


def there_and_back(error):
    try:
        raise error
    except BaseException as caught:
        return failure.rebuild(failure.capture(caught), INFO)


def test_an_ordinary_exception():
    got = there_and_back(ValueError("bad value"))
    assert type(got) is RemoteError
    assert (got.ename, got.evalue, got.engine_info) == ("ValueError", "bad value", INFO)
    assert "raise error" in got.traceback and got.traceback.endswith("ValueError: bad value\n")
    assert type(got.__cause__) is ValueError and got.__cause__.args == ("bad value",)
    assert str(got).startswith("ValueError(bad value) on engine 3 (rank 3 on node7)\n")


def test_causes_are_in_the_text():
    def outer():
        try:
            raise KeyError("first")
        except KeyError as error:
            raise OSError(2, "second") from error

    try:
        outer()
    except OSError as caught:
        got = failure.rebuild(failure.capture(caught), INFO)
    assert "KeyError: 'first'" in got.traceback and "direct cause" in got.traceback
    assert got.__cause__.errno == 2


def test_own_frames_are_left_out():
    from hpcremote.wire import payload

    try:
        payload.dump(threading.Lock())
    except PayloadError as caught:
        got = failure.rebuild(failure.capture(caught), INFO)
    assert "hpcremote/wire" not in str(got.__cause__)
    assert "test_failure.py" in str(got.__cause__)


def test_errors_of_ours_arrive_as_themselves():
    got = there_and_back(UnmetDependency("needs 'x'"))
    with pytest.raises(UnmetDependency, match=r"needs 'x' \[engine 3 \(rank 3 on node7\)\]"):
        raise got
    assert got.engine_info == INFO
    assert isinstance(got.__cause__, RemoteError)
    got = there_and_back(EngineError("gone", engine_id=7, cause="killed"))
    assert type(got) is EngineError and (got.engine_id, got.cause) == (7, "killed")


def test_a_remote_error_on_an_engine_is_wrapped():
    got = there_and_back(RemoteError("E", "v", "tb", {"engine_id": 9}))
    assert type(got) is RemoteError and got.ename == "RemoteError" and got.engine_info == INFO
    assert got.__cause__.engine_info == {"engine_id": 9}


class Picky(Exception):
    def __init__(self, a, b):
        super().__init__(a)


class Stateful(Exception):
    def __init__(self):
        super().__init__("has a lock")
        self.lock = threading.Lock()


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


class Explosive(Exception):
    def __reduce__(self):
        return (int, ("x",))


class Liar(Exception):
    def __reduce__(self):
        return (str, ("not an exception",))


@pytest.mark.parametrize(
    "error", [Picky(1, 2), Stateful(), Explosive("e"), Liar("l")], ids=lambda error: type(error).__name__
)
def test_exceptions_that_cannot_be_rebuilt(error):
    got = there_and_back(error)
    assert type(got) is RemoteError and got.__cause__ is None
    assert got.ename == type(error).__name__ and "raise error" in got.traceback


def test_an_exception_that_cannot_be_shown():
    got = there_and_back(Unprintable())
    assert got.ename == "Unprintable" and "cannot be shown" in got.evalue
    assert "raise error" in got.traceback
    assert type(got.__cause__) is Unprintable


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_base_exceptions(error):
    got = there_and_back(error)
    assert got.ename == type(error).__name__ and type(got.__cause__) is type(error)


def test_sizes_are_bounded():
    got = there_and_back(ValueError("x" * 5_000_000))
    assert len(got.evalue) < failure.MAX_VALUE + 100 and "characters left out" in got.evalue
    assert len(got.traceback) < failure.MAX_TRACEBACK + 100 and "characters left out" in got.traceback
    assert got.__cause__ is None


def test_recursion_is_collapsed():
    def ping(n):
        return pong(n + 1)

    def pong(n):
        return ping(n + 1)

    try:
        ping(0)
    except RecursionError as caught:
        got = failure.rebuild(failure.capture(caught), INFO)
    assert got.ename == "RecursionError"
    assert "frames left out" in got.traceback
    assert got.traceback.count("return ping") < 60


def test_a_long_chain_of_causes_is_cut():
    error = ValueError(0)
    for i in range(1, 3000):
        nxt = ValueError(i)
        nxt.__cause__ = error
        error = nxt
    got = there_and_back(error)
    assert "ValueError: 2999" in got.traceback
    assert "ValueError: 100\n" not in got.traceback


def test_syntax_errors_show_line_and_caret():
    try:
        compile("a = 1\nb = = 2\n", "<execute 1>", "exec")
    except SyntaxError as caught:
        got = failure.rebuild(failure.capture(caught), INFO)
    assert 'File "<execute 1>", line 2' in got.traceback
    assert "b = = 2" in got.traceback and "^" in got.traceback


def test_notes_are_shown():
    error = ValueError("v")
    error.__notes__ = ["look here"]
    assert "look here" in there_and_back(error).traceback


def test_text_that_is_no_unicode():
    got = there_and_back(ValueError("\ud800 \x00"))
    assert "\\ud800" in got.evalue


def test_interactive_exception_classes_come_home():
    script = """
from hpcremote.wire import failure, payload
class Mine(Exception): pass
there = payload.load(payload.dump(Mine("m")))
try: raise there
except Exception as e: data = failure.capture(e)
assert type(failure.rebuild(data, {}).__cause__) is Mine
print("same")
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out == "same\n"


@given(st.binary(max_size=60))
def test_any_bytes_rebuild_to_an_error(data):
    assert isinstance(failure.rebuild(data, INFO), HPCRemoteError)


@given(st.text(), st.sampled_from([ValueError, KeyError, OSError, UnicodeError, ImportError, AssertionError]))
def test_any_message_survives(text, kind):
    got = there_and_back(kind(text))
    assert got.ename == kind.__name__
    assert type(got.__cause__) is kind and got.__cause__.args == (text,)
