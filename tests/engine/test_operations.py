"""Operations in a namespace, without a transport (functions of clients: tests/wire/test_functions.py)."""

from __future__ import annotations

import builtins
import linecache
import sys

import pytest

from hpcremote.engine.comm import current
from hpcremote.engine.namespace import Namespace
from hpcremote.engine.operations import Operations
from hpcremote.errors import PayloadError, RemoteError
from hpcremote.wire import failure, payload, scope, sources
from hpcremote.wire.functions import pack_function


@pytest.fixture
def namespace(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    made = Namespace()
    made.install()
    yield made
    scope.set_namespace(None)


@pytest.fixture
def operations(namespace):
    return Operations(namespace)


def execute(operations, code, filename="", silent=True):
    return operations.perform("execute", None, b"", payload.dump((code, filename, silent)))


def apply(operations, function, *args, **kwargs):
    packed = pack_function(function)
    pieces = payload.dump_call(None if packed.digest else packed.data, args, kwargs)
    return operations.perform("apply", packed.data, packed.digest, pieces)


def failed(operations, op, value):
    status, pieces = operations.answer(op, None, b"", payload.dump(value))
    assert status == "error"
    return failure.rebuild(pieces[0], {"engine_id": 0})


def test_apply_push_pull_clear(operations):
    assert apply(operations, max, 3, 4) == 4
    assert apply(operations, lambda x, y=1: x + y, 3) == 4
    operations.perform("push", None, b"", payload.dump({"a": 1, "b": 2}))
    assert operations.perform("pull", None, b"", payload.dump(["a", "b"])) == [1, 2]
    operations.perform("clear", None, b"", payload.dump(None))
    with pytest.raises(NameError):
        operations.perform("pull", None, b"", payload.dump("a"))


def test_answer(operations):
    assert [
        payload.load(p) if s == "ok" else s
        for s, p in [operations.answer("pull", None, b"", payload.dump("1+1"))]
    ] == [2]
    assert "NameError" in str(failed(operations, "pull", "nope"))
    assert "LookupError" in str(failed(operations, "dance", None))
    with pytest.raises(KeyError):
        operations.perform("apply", None, b"0123456789abcdef", payload.dump_call(None, (), {}))


def test_results_that_cannot_be_sent(operations):
    error = failed(operations, "pull", "(i for i in [])")
    assert type(error) is PayloadError and "the result (a generator) cannot be sent" in str(error)


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import sys; sys.exit()", "raise KeyboardInterrupt"])
def test_exits_end_the_call_only(operations, code):
    error = failed(operations, "execute", (code, "", True))
    assert type(error) is RemoteError and error.ename in ("SystemExit", "KeyboardInterrupt")
    assert operations.answer("pull", None, b"", payload.dump("1"))[0] == "ok"


# ------------------------------------------------------------------ execute


def test_execute_runs_in_the_namespace(operations, namespace):
    assert execute(operations, "a = 5\ndef f(): return a\nclass C: pass") is None
    assert namespace.dict["f"]() == 5
    assert namespace.dict["C"].__module__ == "__main__"
    assert execute(operations, "") is None


class _World:
    """What ``hpcremote.comm()`` asks; counts how often."""

    def __init__(self):
        self.asked = 0

    def comm(self, interruptible=True):
        self.asked += 1
        return f"communicator {self.asked}"


@pytest.fixture
def world():
    made = _World()
    current.install(made)
    yield made
    current.install(None)


NOT_OURS = [
    "comm = 1\nx = comm",
    "from os import path as comm\nx = comm",
    "def comm(): pass\nx = comm()",
    "def f(comm): return comm\nx = f(1)",
    "def f():\n    comm = 1\n    return comm\nx = f()",
    "for comm in (1, 2): x = comm",
    "x = 'comm'",
    "import os\nx = getattr(os, 'comm', 1)",
]


@pytest.mark.parametrize("code", NOT_OURS)
def test_a_comm_of_the_users_is_not_ours(operations, namespace, world, code):
    execute(operations, code)
    assert world.asked == 0
    assert namespace.dict["__builtins__"] is builtins
    assert "x" in namespace.dict


@pytest.mark.parametrize(
    "code",
    [
        "x = comm",
        "def f(): return comm\nx = f()",
        "class A:\n    def g(self): return [comm for _ in (1,)]\nx, = A().g()",
        "async def f(): return comm\nx = await f()",
        "def f(comm): return comm\nx = f(comm)",
    ],
)
def test_code_finds_comm_behind_the_namespace(operations, namespace, world, code):
    execute(operations, code)
    assert namespace.dict["x"] == "communicator 1"
    assert "comm" not in namespace.dict
    assert namespace.dict["__builtins__"] is builtins


def test_comm_is_asked_for_where_it_is_looked_up(operations, namespace, world):
    execute(operations, "def f(): return comm\nif False: comm")
    assert world.asked == 0
    execute(operations, "x = f()")
    execute(operations, "y = f()")
    assert (namespace.dict["x"], namespace.dict["y"]) == ("communicator 1", "communicator 2")
    execute(operations, "comm = 'mine'")
    execute(operations, "x = f(), comm")
    assert namespace.dict["x"] == ("mine", "mine")


def test_without_mpi_comm_is_a_name_like_any_other(operations):
    with pytest.raises(NameError, match="'comm' is not defined"):
        execute(operations, "comm.rank")
    current.install(_World())
    execute(operations, "def f(): return comm, undefined")
    try:
        with pytest.raises(NameError, match="'undefined'"):
            execute(operations, "f()")
    finally:
        current.install(None)
    with pytest.raises(NameError, match="'comm' is not defined"):
        execute(operations, "f()")


def test_the_last_expression_is_shown(operations, namespace):
    record = execute(operations, "x = 20\nx + 1", silent=False)
    assert record["data"] == {"text/plain": "21"}
    assert namespace.dict["_"] == 21
    assert execute(operations, "x + 1") is None
    assert execute(operations, "None", silent=False)["data"] == {}
    second = execute(operations, "x = 3", silent=False)
    assert second["data"] == {} and second["execution_count"] > record["execution_count"]


def test_rich_representations(operations):
    code = """
class Rich:
    def __repr__(self): return "plain"
    def _repr_html_(self): return "<b>x</b>"
    def _repr_png_(self): return (b"png", {"width": 3})
    def _repr_svg_(self): raise RuntimeError
    def _repr_latex_(self): return None
Rich()
"""
    data = execute(operations, code, silent=False)["data"]
    assert data == {"text/plain": "plain", "text/html": "<b>x</b>", "image/png": b"png"}
    assert execute(operations, "Rich", silent=False)["data"] == {"text/plain": "<class '__main__.Rich'>"}


def test_tracebacks_show_the_executed_lines(operations):
    execute(operations, "def f(x):\n    return 1 / x  # here\n")
    error = failed(operations, "execute", ("a = 1\nf(0)  # there\n", "", True))
    assert "return 1 / x  # here" in error.traceback and "f(0)  # there" in error.traceback
    assert "hpcremote/" not in error.traceback


def test_syntax_errors(operations):
    error = failed(operations, "execute", ("a = 1\nb = = 2\n", "", True))
    assert error.ename == "SyntaxError" and "b = = 2" in error.traceback and "^" in error.traceback


@pytest.mark.parametrize("code", ["%matplotlib inline", "a = 1\n%%time\nb = 2", "!ls -l"])
def test_magics_are_recognised(operations, code):
    error = failed(operations, "execute", (code, "", True))
    assert error.ename == "SyntaxError"
    assert "IPython magics and shell lines do not exist on engines" in error.traceback


def test_files_run_as_files(operations, namespace):
    code = "import sys\nwhere = __file__\nmain = __name__ == '__main__'\n1/0\n"
    error = failed(operations, "execute", (code, "/home/me/script.py", True))
    assert 'File "/home/me/script.py", line 4' in error.traceback and "1/0" in error.traceback
    assert namespace.dict["where"] == "/home/me/script.py" and namespace.dict["main"] is True
    assert "__file__" not in namespace.dict


def test_future_imports_of_ours_do_not_reach_users(operations, namespace):
    execute(operations, "def f(x: int): pass")
    assert namespace.dict["f"].__annotations__ == {"x": int}


def test_await_and_coroutines(operations, namespace):
    record = execute(
        operations, "import asyncio\nawait asyncio.sleep(0)\nx = await asyncio.sleep(0, 5)\nx", silent=False
    )
    assert record["data"] == {"text/plain": "5"}

    async def double(x):
        return x * 2

    assert apply(operations, double, 4) == 8


def test_sources_are_bounded(operations):
    for number in range(sources.MAX_FILES + 50):
        execute(operations, f"x = {number}")
    ours = [name for name in linecache.cache if name.startswith("<execute ")]
    assert len(ours) <= sources.MAX_FILES


def test_scopes_end_with_the_call(operations, namespace):
    import builtins

    apply(operations, lambda: [sys.maxsize for _ in "ab"])
    assert namespace.dict["__builtins__"] is builtins

    def fails():
        raise ValueError(sys.maxsize)

    with pytest.raises(ValueError, match=str(sys.maxsize)):
        apply(operations, fails)
    assert namespace.dict["__builtins__"] is builtins


def test_the_pickler_can_be_chosen(operations):
    operations.perform("pickler", None, b"", payload.dump("pickle"))
    try:
        with pytest.raises(PayloadError):
            payload.dump(lambda: 0)
    finally:
        operations.perform("pickler", None, b"", payload.dump("cloudpickle"))
