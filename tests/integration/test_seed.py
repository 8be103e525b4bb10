"""The document "Basics of remote execution", section by section, on four MPI ranks.

Cells are what a notebook user types: they run in a module ``__main__`` (see the fixture ``notebook``), and
once more as a script and at a real ``python -i`` prompt.
"""

from __future__ import annotations

import datetime
import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpcremote
import hpcremote as parallel
from hpcremote import files
from tests.integration.support import PATIENCE, Notebook, Running, environment, python

pytestmark = pytest.mark.mpi


@pytest.fixture
def nb(rc4: hpcremote.Client, notebook: Notebook) -> Notebook:
    """A notebook after its first cells: ``rc``, and ``e0`` that is synchronous."""
    return notebook(
        """
        import hpcremote as parallel
        e0 = rc[0]  # just one engine
        e0.block = True  # let's be synchronous for now
        """,
        rc=rc4,
    )


WAIT = """
def wait(t):
    import time
    tic = time.time()
    time.sleep(t)
    return time.time()-tic
"""

# ---------------------------------------------------------------- Creating a Client instance


def test_client_by_default_connection_information(mpi4: Running) -> None:
    # Ours is the only running cluster, so it is the default one though its profile is another.
    with parallel.Client() as rc:
        assert rc.ids == [0, 1, 2, 3]


def test_client_by_file(mpi4: Running, tmp_path: Path) -> None:
    copied = tmp_path / "client.json"
    copied.write_bytes(mpi4.client_file().read_bytes())
    copied.chmod(0o600)
    with parallel.Client(str(copied)) as rc:
        assert rc.ids == [0, 1, 2, 3]
    with parallel.Client(copied) as rc:
        assert rc[3].apply_sync(abs, -3) == 3


def test_client_by_its_contents(mpi4: Running) -> None:
    import json

    with parallel.Client(json.loads(mpi4.client_file().read_text())) as rc:
        assert rc.ids == [0, 1, 2, 3]


def test_client_by_profile(mpi4: Running) -> None:
    with parallel.Client(profile="mpi") as rc:
        assert rc.ids == [0, 1, 2, 3]


def test_views(nb: Notebook) -> None:
    nb("kinds = type(e0), e0.targets, e0.block, rc[1].block, len(rc[:]), rc[::2].targets, rc[[0, 3]].targets")
    assert nb.kinds == (parallel.DirectView, 0, True, False, 4, [0, 2], [0, 3])


# ---------------------------------------------------------------- Remote Execution with apply

NORMS = """
import numpy
def get_norms(A, levels=[2]):
    norms = []
    for level in levels:
        norms.append(numpy.linalg.norm(A, level))
    return norms
A = numpy.random.random(1024)
here = get_norms(A, levels=[1,2,3,numpy.inf])
"""


def test_apply_get_norms(nb: Notebook) -> None:
    # The document expects a NameError on numpy here: what the function uses travels along instead.
    nb(NORMS)("there = e0.apply(get_norms, A, levels=[1,2,3,numpy.inf])")
    assert nb.there == pytest.approx(nb.here)


def test_apply_get_norms_after_execute_import(nb: Notebook) -> None:
    nb(NORMS)("e0.execute('import numpy')")("there = e0.apply(get_norms, A, levels=[1,2,3,numpy.inf])")
    assert nb.there == pytest.approx(nb.here)


def test_sync_imports(nb: Notebook) -> None:
    with redirect_stdout(io.StringIO()) as said:
        nb("with e0.sync_imports():\n   import numpy")
    assert said.getvalue() == "importing numpy on engine(s)\n"
    assert nb.numpy is np
    nb("there = e0['numpy.__name__']")
    assert nb.there == "numpy"


def test_apply_a_module_function(nb: Notebook) -> None:
    nb("import numpy; A = numpy.random.random(1024); there = e0.apply(numpy.linalg.norm, A, 2)")
    assert nb.there == pytest.approx(np.linalg.norm(nb.A, 2))


# ---------------------------------------------------------------- execute and run

MYSCRIPT = """\
import math
import numpy
import sys

a=5

def mysquare(x):
    return x*x
"""


def test_execute_and_run(nb: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("myscript.py").write_text(MYSCRIPT)
    nb("e0.run('myscript.py')")("e0.execute('b=mysquare(a)')")("a = e0['a']")("b = e0['b']")
    assert (nb.a, nb.b) == (5, 25)
    nb("modules = e0.pull(('math.pi', 'numpy.__name__', 'sys.executable'))")
    assert nb.modules[1:] == ["numpy", sys.executable]


# ---------------------------------------------------------------- Remote function decorators


def test_remote_decorator(nb: Notebook, mpi4: Running) -> None:
    nb("""
    @e0.remote(block=True)
    def getpid():
        import os
        return os.getpid()
    there = getpid()
    """)
    assert nb.there == mpi4.engines[0].pid != os.getpid()


# ---------------------------------------------------------------- Working with the engine namespace


def test_engine_namespace(nb: Notebook) -> None:
    nb("""
    def inc_a(increment):
        global a
        a = a+increment
    """)
    nb("def mul_by_a(b):\n    return a*b")
    nb("e0['a'] = 10")
    nb("there = e0.apply(mul_by_a, 2)")
    assert nb.there == 20
    nb("nothing = e0.apply(inc_a, 5)")
    nb("a = e0['a']; there = e0.apply(mul_by_a, 2)")
    assert (nb.nothing, nb.a, nb.there) == (None, 15, 30)


def test_reference(nb: Notebook) -> None:
    nb("ra = parallel.Reference('a')")("e0['a'] = 10")("def double(x):\n    return x*2")
    nb("first = e0.apply(double, ra)")("e0['a'] = 5")("second = e0.apply(double, ra)")
    assert (nb.first, nb.second) == (20, 10)
    # What the document writes, double(ra), is meant so: here there is nothing to double.
    with pytest.raises(TypeError, match=r"Reference\('a'\) lives on the engines: pass it to view.apply"):
        nb("double(ra)")


# ---------------------------------------------------------------- Moving Python objects around


def test_push_and_pull(nb: Notebook) -> None:
    nb("e0.push(dict(a=1.03234,b=3453))")("a = e0.pull('a')")("b = e0.pull('b')")("ab = e0.pull(('a','b'))")
    assert (nb.a, nb.b, nb.ab) == (1.03234, 3453, [1.03234, 3453])
    nb("e0.push(dict(c='speed'))")
    nb("ar = e0.pull('a', block=False)")
    assert isinstance(nb.ar, parallel.AsyncResult)
    nb("there = ar.get()")
    assert nb.there == 1.03234
    nb("ar = e0.push(dict(d=1), block=False)")
    assert isinstance(nb.ar, parallel.AsyncResult)
    assert nb.ar.get(PATIENCE) is None


def test_dictionary_interface(nb: Notebook) -> None:
    nb("e0['a']=['foo','bar']")("there = e0['a']")
    assert nb.there == ["foo", "bar"]
    nb("e0.update(dict(b=2)); there = e0.get('b')")
    assert nb.there == 2


# ---------------------------------------------------------------- Non-blocking execution


def test_non_blocking(nb: Notebook) -> None:
    nb(WAIT)("ar = e0.apply_async(wait, 0.5)")
    nb("there = ar.get()")
    assert 0.5 <= nb.there < 5
    nb("ar = e0.apply_async(wait, 1)")("ready = ar.ready()")
    assert nb.ready is False
    with pytest.raises(parallel.TimeoutError) as caught:
        nb("ar.get(0.1)")
    assert str(caught.value) == "Result not ready."
    assert caught.type is TimeoutError
    assert nb.ar.get(PATIENCE) >= 1  # nothing was lost by asking early


def test_apply_and_its_siblings(nb: Notebook) -> None:
    assert {"apply", "apply_async", "apply_sync"} <= {name for name in dir(nb.e0) if name.startswith("apply")}
    nb("""
    view = rc[:]
    there = view.apply_sync(abs, -1), view.apply_async(abs, -1).get(), view.apply(abs, -1).get()
    """)
    assert nb.there == ([1] * 4, [1] * 4, [1] * 4)


# ---------------------------------------------------------------- AsyncResults have metadata

DOCUMENTED = {
    "after", "completed", "engine_id", "engine_uuid", "follow", "msg_id", "received", "started", "status",
    "stderr", "stdout", "submitted",
}  # fmt: skip
OURS = {"carrier"}
OF_TODAY = {"data", "error", "execute_input", "execute_result", "label", "outputs"}


def test_metadata(nb: Notebook) -> None:
    nb(WAIT)("ar = e0.apply_async(wait, 0.2)")("ar.get()")("metadata = ar.metadata")
    known: dict[str, Any] = nb.metadata
    assert set(known) == DOCUMENTED | OF_TODAY | OURS
    assert (known["after"], known["follow"]) == ([], [])
    assert (known["engine_id"], known["status"], known["stdout"], known["stderr"]) == (0, "ok", "", "")
    assert isinstance(known["engine_uuid"], str) and isinstance(known["msg_id"], str)
    assert known["msg_id"] == nb.ar.msg_ids[0]
    times = [known[name] for name in ("submitted", "started", "completed", "received")]
    assert all(isinstance(one, datetime.datetime) for one in times)
    assert times == sorted(times)
    assert (known["completed"] - known["started"]).total_seconds() >= 0.2


def test_metadata_of_several_engines(nb: Notebook) -> None:
    nb("ar = rc[:].apply_async(print, 'hello'); ar.get()")
    assert [one["engine_id"] for one in nb.ar.metadata] == [0, 1, 2, 3]
    assert [one["stdout"] for one in nb.ar.metadata] == ["hello\n"] * 4
    assert nb.ar.engine_id == [0, 1, 2, 3]
    assert len(set(nb.ar.engine_uuid)) == 4


# ---------------------------------------------------------------- Remote imports


@pytest.mark.parametrize(
    ("statement", "probe", "value"),
    [
        ("import numpy", "numpy.__name__", "numpy"),
        ("import numpy as np", "np.__name__", "numpy"),
        ("import os.path", "os.path.basename('a/b')", "b"),
        ("from math import pi, floor as down", "down(pi)", 3),
        ("from fractions import *", "str(Fraction(1, 2))", "1/2"),
    ],
)
@pytest.mark.parametrize("local", [True, False])
def test_sync_imports_of_every_form(
    nb: Notebook, statement: str, probe: str, value: Any, local: bool
) -> None:
    with redirect_stdout(io.StringIO()) as said:
        nb(f"with rc[:].sync_imports(local={local}):\n    {statement}")
    assert said.getvalue().startswith("importing ") and said.getvalue().endswith(" on engine(s)\n")
    assert nb.rc[:][probe] == [value] * 4
    if local:
        assert eval(probe, vars(nb.module)) == value
    else:
        with pytest.raises(NameError):
            eval(probe, vars(nb.module))


def test_sync_imports_of_what_is_not_there(nb: Notebook) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        nb("with e0.sync_imports():\n    import no_such_module")
    with pytest.raises(parallel.RemoteError, match="No module named 'no_such_module'"):
        nb("with e0.sync_imports(local=False):\n    import no_such_module")


def test_require_by_name(nb: Notebook) -> None:
    nb("from hpcremote import require")
    nb("""
    @require('re')
    def findall(pat, x):
        # re is guaranteed to be available
        return re.findall(pat, x)
    """)
    nb("there = e0.apply(findall, '[a-z]', 'A1b2c')")
    assert nb.there == ["b", "c"]


def test_require_of_a_module(nb: Notebook) -> None:
    nb("import time; from hpcremote import require")
    nb("""
    @require(time)
    def wait(t):
        time.sleep(t)
        return t
    """)
    nb("there = e0.apply(wait, 0.01)")
    assert nb.there == 0.01


def test_require_of_what_is_not_there(nb: Notebook) -> None:
    nb("""
    from hpcremote import require
    @require('no_such_module')
    def f():
        global ran
        ran = True
    """)
    with pytest.raises(parallel.UnmetDependencyError, match="f requires 'no_such_module'"):
        nb("e0.apply(f)")
    assert parallel.UnmetDependencyError is parallel.UnmetDependency
    with pytest.raises(parallel.RemoteError, match="name 'ran' is not defined"):
        nb("e0['ran']")  # it never ran


# ---------------------------------------------------------------- Remote exceptions


def test_remote_error_right_away(nb: Notebook) -> None:
    with pytest.raises(parallel.RemoteError) as caught:
        nb("e0.execute('1/0', block=True)")
    said = str(caught.value).splitlines()
    host = os.uname().nodename
    assert said[0] == f"ZeroDivisionError(division by zero) on engine 0 (rank 0 on {host})"
    assert said[1] == "Traceback (most recent call last):"
    assert said[2].strip().startswith('File "<execute ') and said[2].endswith("line 1, in <module>")
    assert said[3].strip() == "1/0"
    assert said[-1] == "ZeroDivisionError: division by zero"
    assert type(caught.value.__cause__) is ZeroDivisionError
    assert (caught.value.ename, caught.value.evalue) == ("ZeroDivisionError", "division by zero")


def test_remote_error_later(nb: Notebook) -> None:
    nb("e0.block=False")("ar = e0.execute('1/0')")
    with pytest.raises(parallel.RemoteError, match="^ZeroDivisionError"):
        nb("ar.get()")
    with pytest.raises(parallel.RemoteError, match="^ZeroDivisionError"):
        nb("ar.get()")  # and again, whenever it is asked for


def test_composite_error(nb: Notebook) -> None:
    nb("ar = rc[:].execute('1/0')")
    with pytest.raises(parallel.CompositeError) as caught:
        nb("ar.get()")
    said = str(caught.value)
    assert said.startswith(
        "execute failed on 4 of 4 engines: ZeroDivisionError(division by zero) on engines 0-3\n"
    )
    assert said.count("ZeroDivisionError: division by zero") == 4
    assert [info["engine_id"] for *_, info in caught.value.elist] == [0, 1, 2, 3]
    assert isinstance(caught.value, parallel.RemoteError)
    with pytest.raises(parallel.RemoteError, match="on engine 2 "):
        caught.value.raise_exception(2)


def test_a_remote_traceback_has_the_users_lines(nb: Notebook) -> None:
    nb("""
    def inner(x):
        return 1 / x

    def outer(x):
        return inner(x) + 1
    """)
    with pytest.raises(parallel.RemoteError) as caught:
        nb("e0.apply(outer, 0)")
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert "return inner(x) + 1" in lines
    assert "return 1 / x" in lines
    assert not [line for line in lines if "hpcremote" in line]  # our own frames are nobody's business


# ---------------------------------------------------------------- the whole, as users meet it

WHOLE = """
import os
import hpcremote as parallel
from hpcremote import require
rc = parallel.Client(profile='mpi')
assert rc.ids == [0, 1, 2, 3]
e0 = rc[0]
e0.block = True

import numpy

def get_norms(A, levels=[2]):
    norms = []
    for level in levels:
        norms.append(numpy.linalg.norm(A, level))
    return norms

A = numpy.random.random(1024)
levels = [1,2,3,numpy.inf]
assert numpy.allclose(e0.apply(get_norms, A, levels=levels), get_norms(A, levels=levels))
e0.execute('import numpy') and None
assert e0.apply(numpy.linalg.norm, A, 2) == numpy.linalg.norm(A, 2)

@e0.remote(block=True)
def getpid():
    import os
    return os.getpid()

assert getpid() != os.getpid()

def inc_a(increment):
    global a
    a = a+increment

def mul_by_a(b):
    return a*b

e0['a'] = 10
assert e0.apply(mul_by_a, 2) == 20
e0.apply(inc_a, 1)
assert e0['a'] == 11
ra = parallel.Reference('a')

def double(x):
    return x*2

assert e0.apply(double, ra) == 22
e0['a'] = 5
assert e0.apply(double, ra) == 10
e0.push(dict(a=1.03234,b=3453))
assert e0.pull(('a','b')) == [1.03234, 3453]

@require('re')
def findall(pat, x):
    return re.findall(pat, x)

assert e0.apply(findall, 'b', 'abc') == ['b']

def helper(x):
    return double(x) + 1

def wait(t):
    import time
    tic = time.time()
    time.sleep(t)
    return time.time()-tic

ar = rc[:].apply_async(wait, 0.1)
assert len(ar.get()) == 4
assert rc[:].apply_sync(helper, 3) == [7] * 4

class Point:
    def __init__(self, x):
        self.x = x

assert e0.apply(lambda p: p.x, Point(3)) == 3
assert e0.apply(Point, 4).x == 4

def broken(x):
    return 1 / x

try:
    e0.apply(broken, 0)
except parallel.RemoteError as error:
    said = str(error)

assert 'ZeroDivisionError: division by zero' in said
print('all of it', 'return 1 / x' in said)
"""


def test_as_a_script(mpi4: Running, tmp_path: Path) -> None:
    (tmp_path / "seed.py").write_text(WHOLE)
    ran = python(str(tmp_path / "seed.py"))
    out, err = ran.communicate(timeout=60)
    assert (out, err, ran.returncode) == ("all of it True\n", "", 0)


def test_at_a_prompt(mpi4: Running) -> None:
    session = f"{WHOLE}\nrc.close()\nquit()\n"
    above, below = pty.openpty()
    try:
        ran = subprocess.Popen(
            [sys.executable, "-i", "-q", "-"], stdin=subprocess.PIPE, stdout=below, stderr=subprocess.PIPE,
            env=environment(PYTHON_BASIC_REPL="1", TERM="dumb"), text=True,
        )  # fmt: skip
        _, err = ran.communicate(session, timeout=60)
        os.close(below)
        below = -1
        said = b"".join(_read(above)).decode()
    finally:
        os.close(above)
        if below >= 0:
            os.close(below)
    assert "Traceback" not in err, err
    assert "all of it" in said  # without a source to look at, before Python 3.13, the lines are not known
    assert ran.returncode == 0


def _read(fd: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(fd, 65536)
        except OSError:
            return
        if not data:
            return
        yield data


def test_nothing_of_the_users_is_touched(session_home: Path) -> None:
    assert files.user_dir() == session_home
