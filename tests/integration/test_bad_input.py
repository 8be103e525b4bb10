"""Bad input, as a new user gives it: one clear sentence or a RemoteError, soon, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import hpcremote
from hpcremote.cli import exits
from tests.integration.support import Notebook, Running, command, environment, script

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(60)]

#: Seconds after which a mistake has to be told. What has to time out first is given that time beside it.
SOON = 10.0


@pytest.fixture(autouse=True)
def told_soon() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON + 10, "it took too long"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home without clusters. Whatever is started in it has to be gone at the end."""
    home = tmp_path / "home"
    monkeypatch.setenv("HPCREMOTE_DIR", str(home))
    yield home
    assert [process for process in psutil.process_iter() if _lives_in(process, home)] == []
    assert list(home.glob("clusters/*/*/*.json")) == []


def _lives_in(process: psutil.Process, home: Path) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get("HPCREMOTE_DIR") == str(home)
    except psutil.Error:
        return False


def sentence(error: BaseException | str) -> str:
    """Return what is said, having looked whether it is one clear sentence."""
    said = str(error)
    assert 10 < len(said) < 600, said
    assert "\n" not in said.strip()
    assert "Traceback" not in said
    return said


def refused(code: int, *words: str, **options: Any) -> str:
    """Run ``hpcremote`` *words*; return what it says: one sentence, with that exit code."""
    ran = command(*words, **options)
    assert ran.returncode == code, (ran.returncode, ran.stderr)
    assert ran.stdout == ""
    assert ran.stderr.startswith("hpcremote: "), ran.stderr
    return sentence(ran.stderr)


# ---------------------------------------------------------------- profiles and clusters


def test_a_profile_that_does_not_exist(home: Path) -> None:
    for make in (hpcremote.Client, hpcremote.Cluster):
        with pytest.raises(hpcremote.ProfileError) as caught:
            make(profile="mpj")
        assert sentence(caught.value).startswith("there is no profile 'mpj'; did you mean 'mpi'?")
    assert "did you mean 'mpi'?" in refused(exits.ERROR, "start", "--profile", "mpj")
    assert "there is no profile 'mpj'" in refused(exits.ERROR, "engine", "--profile", "mpj", "--wait", "0")
    assert "there is no profile 'mpj'" in refused(exits.ERROR, "controller", "--profile", "mpj")


def test_no_cluster_running(home: Path) -> None:
    with pytest.raises(hpcremote.ClusterNotFound) as caught:
        hpcremote.Client()
    assert sentence(caught.value).endswith("start one with `hpcremote start`")
    with pytest.raises(hpcremote.ClusterNotFound) as caught:
        hpcremote.Client(profile="mpi")
    assert sentence(caught.value).endswith("start one with `hpcremote start --profile mpi`")
    with pytest.raises(hpcremote.ClusterNotFound):
        hpcremote.Cluster(profile="mpi", cluster_id="x").connect_client()
    for words in (["stop"], ["status"], ["logs"]):
        assert "there " in refused(exits.NO_CLUSTER, *words)
    assert "no cluster" in refused(exits.NO_CLUSTER, "engine", "--profile", "mpi", "--wait", "0")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("n: many\n", "mine.yaml:1: key 'n' has to be a whole number, not 'many'"),
        ("n: 2\nlancher: local\n", "mine.yaml:2: key 'lancher' is not known; did you mean 'launcher'?"),
        ("n: [2\n", "mine.yaml:2: not YAML"),
        ("extends: mpj\n", "mpj"),
    ],
)
def test_a_profile_that_is_wrong(home: Path, text: str, reason: str) -> None:
    (home / "profiles").mkdir(parents=True)
    (home / "profiles" / "mine.yaml").write_text(text)
    with pytest.raises(hpcremote.ProfileError) as caught:
        hpcremote.Cluster(profile="mine")
    assert reason in sentence(caught.value)
    assert reason in refused(exits.ERROR, "start", "--profile", "mine")


@pytest.mark.parametrize("n", [0, -3, 2.5, "four"])
def test_a_number_of_engines_that_is_none(home: Path, n: Any) -> None:
    with pytest.raises(
        hpcremote.ConfigError, match="n is .*: a cluster needs a whole number of engines"
    ) as caught:
        hpcremote.Cluster(n=n, profile="mpi")
    sentence(caught.value)


def test_no_engines_on_the_command_line(home: Path) -> None:
    assert "n is 0" in refused(exits.ERROR, "start", "-n", "0", "--profile", "mpi")
    assert command("start", "-n", "x").returncode == exits.USAGE


def test_more_ranks_than_cores_are_fine_with_mpich(start: Any) -> None:
    n = len(os.sched_getaffinity(0)) + 3
    assert start(n=n, profile="mpi").rc.ids == list(range(n))


def fake_mpiexec(folder: Path, body: str) -> str:
    path = folder / "mpiexec"
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "mpiexec (Open MPI) 5.0.7"; exit; fi\n{body}\n'
    )
    path.chmod(0o755)
    return str(path)


def test_more_ranks_than_slots(home: Path, tmp_path: Path) -> None:
    complaint = "There are not enough slots available in the system to satisfy the 9 slots"
    mpiexec = fake_mpiexec(tmp_path, f"echo '{complaint}' >&2; exit 1")
    with pytest.raises(hpcremote.LaunchError) as caught:
        hpcremote.Cluster(n=9, profile="mpi", mpiexec=mpiexec).start()
    first = str(caught.value).partition("\n")[0]
    assert "has fewer slots than the 9 ranks asked for: start fewer" in first
    ran = command("start", "-n", "9", "--profile", "mpi", "--set", f"mpiexec={mpiexec}")
    assert ran.returncode == exits.NOT_LAUNCHED
    assert "has fewer slots than the 9 ranks asked for" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_no_mpiexec(home: Path) -> None:
    with pytest.raises(hpcremote.LaunchError, match="mpiexec: /no/mpiexec") as caught:
        hpcremote.Cluster(n=2, profile="mpi", mpiexec="/no/mpiexec").start()
    sentence(caught.value)
    words = ["start", "-n", "2", "--profile", "mpi", "--set", "mpiexec=/no/mpiexec"]
    assert "mpiexec: /no/mpiexec" in refused(exits.NOT_LAUNCHED, *words)


def test_no_mpi_library(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPI4PY_LIBMPI", str(tmp_path / "libmpi.so"))
    with pytest.raises(hpcremote.LaunchError) as caught:
        hpcremote.Cluster(n=2, profile="mpi").start()
    assert "MPI library" in sentence(str(caught.value).partition("\n---")[0])
    ran = command("start", "-n", "2", "--profile", "mpi")
    assert ran.returncode == exits.NOT_LAUNCHED
    assert "MPI library" in ran.stderr
    # ... and engines without MPI do not mind.
    with hpcremote.Cluster(n=1, profile="local") as rc:
        assert rc.ids == [0]


# ---------------------------------------------------------------- connection files


@pytest.fixture
def file(mpi2: Running, tmp_path: Path) -> Path:
    """A copy of a running cluster's file for clients, to be spoilt."""
    path = tmp_path / "client.json"
    path.touch(0o600)
    path.write_bytes(mpi2.client_file().read_bytes())
    return path


def wrong_file(path: Path) -> str:
    with pytest.raises(hpcremote.ConnectionFileError) as caught:
        hpcremote.Client(path)
    assert str(path) in str(caught.value)
    return sentence(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "does not exist" in wrong_file(tmp_path / "nothing.json")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file(file: Path, share: float) -> None:
    text = file.read_text()
    file.write_text(text[: int(share * len(text))])
    assert "not a whole JSON file" in wrong_file(file)


def test_a_file_that_is_something_else(file: Path) -> None:
    file.write_bytes(os.urandom(500))
    wrong_file(file)
    file.write_text("[1, 2]")
    wrong_file(file)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_a_file_that_others_may_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    said = wrong_file(file)
    assert "others may use it" in said and f"chmod 600 {file}" in said


def test_a_file_of_a_cluster_of_another_version(file: Path) -> None:
    told = json.loads(file.read_text()) | {"protocol": 99, "version": "7.0"}
    file.write_text(json.dumps(told))
    said = wrong_file(file)
    assert "the cluster runs hpcremote 7.0 (protocol 99), this is hpcremote" in said
    assert "install the same version on both sides" in said
    with pytest.raises(hpcremote.ConnectionFileError, match="protocol 99"):
        hpcremote.Client(told)


def test_the_engines_file_instead_of_the_clients(mpi2: Running) -> None:
    assert "use client.json of the same cluster" in wrong_file(mpi2.client_file().with_name("engine.json"))


def test_a_stale_file(file: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pid": gone.pid}))
    said = wrong_file(file)
    assert "is stale" in said and "hpcremote clean" in said


def test_a_file_with_another_clusters_keys(mpi2: Running, file: Path) -> None:
    """Over TCP the keys decide; who has the wrong ones is not answered, and does not wait for ever."""
    from hpcremote.net.keys import new_keypair

    mine = new_keypair()
    told = json.loads(file.read_text()) | {
        "public_key": mine.public,
        "secret_key": mine.secret,
        "machine": "other",
    }
    began = time.monotonic()
    with pytest.raises(hpcremote.NotConnected) as caught:
        hpcremote.Client(told, timeout=1.0)
    assert time.monotonic() - began < 5
    assert mine.secret not in str(caught.value)
    assert mpi2.rc[:].apply_sync(abs, -1) == [1, 1]


# ---------------------------------------------------------------- engines and names


@pytest.fixture
def nb(mpi2: Running, notebook: Notebook) -> Notebook:
    mpi2.rc.clear(block=True)
    return notebook("import hpcremote as parallel; e0 = rc[0]; e0.block = True; view = rc[:]", rc=mpi2.rc)


@pytest.mark.parametrize("cell", ["rc[7]", "rc[-3]", "rc[[0, 7]]", "rc.direct_view(7).apply_sync(abs, -1)"])
def test_an_engine_id_out_of_range(nb: Notebook, cell: str) -> None:
    with pytest.raises(IndexError, match=r"there is no engine (7|-3); there are: 0, 1") as caught:
        nb(cell)
    sentence(caught.value)


@pytest.mark.parametrize("cell", ["rc['0']", "rc[1.5]", "rc[None]"])
def test_an_engine_id_that_is_none(nb: Notebook, cell: str) -> None:
    with pytest.raises(TypeError, match="engines are named by") as caught:
        nb(cell)
    sentence(caught.value)


def test_a_name_that_is_not_defined(nb: Notebook) -> None:
    for cell in ("e0['x']", "e0.pull('x')", "e0.get('x')"):
        with pytest.raises(hpcremote.RemoteError, match=r"name 'x' is not defined\) on engine 0") as caught:
            nb(cell)
        assert type(caught.value.__cause__) is NameError
    alike = r"NameError\(name 'x' is not defined\) on engines 0-1"
    with pytest.raises(hpcremote.CompositeError, match=alike):
        nb("view['x']")
    with pytest.raises(hpcremote.RemoteError, match="NameError: name 'y' is not defined"):
        nb("e0.execute('y + 1')")


def test_a_global_that_only_the_client_has(nb: Notebook) -> None:
    nb("N = 100\ndef f():\n    return N + 1")
    with pytest.raises(hpcremote.RemoteError) as caught:
        nb("e0.apply(f)")
    assert "'N' exists on the client (int); push it with view['N'] = N or pass it as an argument" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "code", ["1 +", "def f(:\n  pass", "  x = 1\n y = 2", "print 'hello'", "%px 1", "!ls"]
)
def test_a_syntax_error_in_execute(nb: Notebook, code: str) -> None:
    with pytest.raises(hpcremote.RemoteError) as caught:
        nb("e0.execute(source)", source=code)
    assert isinstance(caught.value.__cause__, SyntaxError)
    assert code.splitlines()[0].strip() in str(caught.value)


def test_input_has_nobody_to_ask(nb: Notebook) -> None:
    """On every rank: an MPI launcher leaves some of them a pipe to which nobody writes."""
    with pytest.raises(hpcremote.CompositeError) as caught:
        nb("rc[:].execute('answer = input()', block=True)")
    assert [type(error.__cause__) for error in caught.value.errors] == [EOFError] * 2


def test_a_missing_file_in_run(nb: Notebook, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.py"):
        nb("e0.run(path)", path=tmp_path / "nothing.py")
    with pytest.raises(IsADirectoryError):
        nb("e0.run(path)", path=tmp_path)


def test_a_file_with_a_mistake_in_run(nb: Notebook, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("a = 1\nb = a / 0\n")
    with pytest.raises(hpcremote.RemoteError) as caught:
        nb("e0.run(path)", path=path)
    assert f'File "{path}", line 2, in <module>' in str(caught.value)
    assert "b = a / 0" in str(caught.value)


@pytest.mark.parametrize(
    ("cell", "error", "reason"),
    [
        ("e0.execute(1)", TypeError, "execute"),
        ("e0.push('a')", TypeError, "push"),
        ("e0.push({1: 2})", TypeError, "push"),
        ("e0.pull(1)", TypeError, "names are"),
        ("e0.apply(1)", TypeError, "a function to call, not int 1"),
        ("e0.apply(None)", TypeError, "a function to call, not NoneType"),
        ("e0.apply()", TypeError, "apply"),
        ("e0.scatter('a', range(4), dist='x')", ValueError, "dist is 'b'"),
        ("view.map()", TypeError, "map"),
        ("view.map(abs)", TypeError, "map"),
        ("view.map(abs, 5)", TypeError, "a sequence or an iterator, not 5"),
        ("rc.load_balanced_view()", AttributeError, "there is no load balancing"),
        ("parallel.Refernce('a')", AttributeError, "Refernce"),
    ],
)
def test_a_wrong_argument(nb: Notebook, cell: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error) as caught:
        nb(cell)
    assert reason in str(caught.value)


# ---------------------------------------------------------------- objects


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        ("e0.apply(f, lock)", "argument 1 of f"),
        ("e0.apply(f, 1, y=lock)", "argument 'y' of f"),
        ("e0.apply(f, [1, {'deep': lock}])", "argument 1 of f at [1]['deep']"),
        ("e0['x'] = lock", "push of x"),
        ("view.map(f, [1, lock])", "of f"),
        ("view.scatter('x', [lock, lock])", "scatter x"),
    ],
)
def test_an_argument_that_cannot_be_pickled(nb: Notebook, cell: str, named: str) -> None:
    nb("import threading; lock = threading.Lock()\ndef f(x, y=0):\n    return x")
    with pytest.raises(hpcremote.PayloadError) as caught:
        nb(cell)
    said = sentence(caught.value)
    assert named in said and "lock" in said
    assert nb.e0.apply(abs, -1) == 1


def test_a_function_that_holds_what_cannot_be_pickled(nb: Notebook) -> None:
    nb("""
    import threading
    def make():
        lock = threading.Lock()
        def f():
            return lock
        return f
    """)
    with pytest.raises(hpcremote.PayloadError, match="cannot be sent .*'lock'") as caught:
        nb("e0.apply(make())")
    sentence(caught.value)


def test_a_result_that_cannot_be_pickled(nb: Notebook) -> None:
    nb("def f():\n    import threading\n    return {'a': [threading.Lock()]}")
    with pytest.raises(hpcremote.PayloadError) as caught:
        nb("e0.apply(f)")
    said = sentence(caught.value)
    assert "the result (a dict) cannot be sent at ['a'][0]" in said
    assert "engine 0" in said
    with pytest.raises(hpcremote.CompositeError, match="2 of 2 engines: PayloadError"):
        nb("view.apply_sync(f)")


def test_a_result_that_is_too_large_for_the_engine(nb: Notebook) -> None:
    nb("def f():\n    return bytearray(1 << 50)")
    with pytest.raises(hpcremote.RemoteError, match="MemoryError"):
        nb("e0.apply(f)")
    assert nb.e0.apply(abs, -1) == 1


def test_a_result_for_which_shared_memory_has_no_room_goes_another_way(nb: Notebook) -> None:
    nb("""
    def f(limit):
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    def g():
        import numpy
        return numpy.arange(1_000_000)
    e0.apply(f, 1 << 20)
    there = e0.apply(g)
    e0.apply(f, -1)
    """)
    assert nb.there.sum() == 499999500000


TOO_LARGE = """
import resource, sys
import hpcremote
rc = hpcremote.Client(sys.argv[1])
rc[0]['way'] = sys.argv[2]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))

def f(size):
    import numpy
    ones = numpy.ones(size, dtype='u1')
    return ones if way == 'array' else bytearray(ones)

try:
    rc[0].apply_sync(f, 300 << 20)
except Exception as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(rc[0].apply_sync(abs, -2), sum(memoryview(rc[0].apply_sync(f, 3 << 20))) == 3 << 20)
"""


@pytest.mark.parametrize("way", ["array", "stream"])
def test_a_result_that_is_too_large_for_the_client(mpi2: Running, way: str) -> None:
    ran = script(TOO_LARGE, str(mpi2.client_file()), way)
    out, err = ran.communicate(timeout=30)
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith("PayloadError what f returned on engine 0 (rank 0 on ")
    assert re.search(r"cannot be read here: there is no memory for its 314,?57[\d,]+ bytes$", lines[0])
    assert lines[1:] == ["2 True"]


@pytest.mark.parametrize("kind", [bytearray, np.zeros], ids=["bytes", "array"])
def test_an_argument_that_is_too_large_for_the_engine(nb: Notebook, kind: Any) -> None:
    nb("""
    def limit(more):
        import resource
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        limit = used + more if more else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    e0.apply(limit, 100 << 20)
    """)
    try:
        with pytest.raises(
            hpcremote.PayloadError, match=r"what was sent with the call .* no memory for its \d+"
        ) as caught:
            nb.e0.push({"x": kind(300 << 20)}, block=True)
        assert "engine 0" in sentence(caught.value)
    finally:
        nb("e0.apply(limit, 0)")
    assert nb.e0.apply(abs, -1) == 1


# ---------------------------------------------------------------- modules


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that the client has and engines have not."""
    (tmp_path / "only_here.py").write_text("class Thing:\n    pass\n\ndef work(x):\n    return x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("only_here", None)


@pytest.mark.parametrize(
    "cell", ["e0.apply(only_here.work, 1)", "e0['x'] = only_here.Thing()", "e0.execute('import only_here')"]
)
def test_a_module_that_the_engine_lacks(nb: Notebook, only_here: None, cell: str) -> None:
    nb("import only_here")
    with pytest.raises(hpcremote.RemoteError, match="No module named 'only_here'") as caught:
        nb(cell)
    assert type(caught.value.__cause__) is ModuleNotFoundError
    assert "engine 0" in str(caught.value)


def test_a_result_of_a_module_that_the_client_lacks(nb: Notebook, tmp_path: Path) -> None:
    (tmp_path / "only_there.py").write_text("class Thing:\n    pass\n")
    nb(
        """
        def f(folder):
            import sys
            sys.path.insert(0, folder)
            import only_there
            return only_there.Thing()
        """
    )
    with pytest.raises(hpcremote.PayloadError, match="cannot be unpickled here.*only_there") as caught:
        nb("e0.apply(f, folder)", folder=str(tmp_path))
    sentence(caught.value)


# ---------------------------------------------------------------- disks


def test_an_unusable_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "file" / "home"))
    with pytest.raises(hpcremote.ConfigError) as caught:
        hpcremote.Cluster(n=1, profile="local").start()
    assert str(tmp_path / "file") in sentence(caught.value)
    assert str(tmp_path / "file") in refused(exits.ERROR, "start", "-n", "1", "--profile", "local")
    assert str(tmp_path / "file") in refused(exits.ERROR, "profile", "create", "mine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))
    assert "Permission denied" in refused(exits.ERROR, "start", "-n", "1", "--profile", "local")


def test_a_full_disk(home: Path) -> None:
    """A file may have no bytes: whatever is written fails, as on a full disk."""
    ran = subprocess.run(
        [sys.executable, "-B", "-m", "hpcremote", "start", "-n", "1", "--profile", "local"],
        text=True, capture_output=True, timeout=30, check=False, env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )  # fmt: skip
    assert ran.returncode == exits.ERROR
    said = sentence(ran.stderr)
    assert said.startswith("hpcremote: cannot write ") and "File too large" in said


# ---------------------------------------------------------------- no engines, no controller


def test_no_engines(home: Path, start: Any) -> None:
    """A controller that was started by hand has no engines yet."""
    ran = subprocess.Popen(
        [sys.executable, "-m", "hpcremote", "controller", "--profile", "local"], env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + SOON
        while not list(home.glob("clusters/*/*/client.json")):
            assert time.monotonic() < deadline and ran.poll() is None
            time.sleep(0.01)
        with hpcremote.Client(profile="local") as rc:
            assert rc.ids == []
            with pytest.raises(
                hpcremote.NoEnginesRegistered, match="there are no engines: start some"
            ) as caught:
                rc[0]
            sentence(caught.value)
            with pytest.raises(hpcremote.NoEnginesRegistered):
                rc.direct_view("all").apply_sync(abs, -1)
            with pytest.raises(TimeoutError, match="0 of 2 engines were there"):
                rc.wait_for_engines(2, timeout=0.1)
    finally:
        ran.terminate()
        assert ran.wait(SOON) is not None


def test_a_closed_client(mpi2: Running) -> None:
    rc = mpi2.new_client()
    view = rc[:]
    rc.close()
    for use in (lambda: view.apply_sync(abs, -1), lambda: rc[0], rc.queue_status):
        with pytest.raises(hpcremote.NotConnected, match="this client is closed"):
            use()
    rc.close()


def test_a_client_in_a_fork(mpi2: Running) -> None:
    out = script(
        """
        import os, sys, warnings
        import hpcremote
        warnings.simplefilter("ignore")
        rc = hpcremote.Client(sys.argv[1])
        pid = os.fork()
        if not pid:
            try:
                rc[0].apply_sync(abs, -1)
            except hpcremote.NotConnected as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        print(rc[0].apply_sync(abs, -5))
        """,
        str(mpi2.client_file()),
    ).communicate(timeout=30)[0]
    assert "cannot be used in its fork" in out
    assert out.splitlines()[-1] == "5"


def test_engines_that_sleep_do_not_keep_queue_status_waiting(nb: Notebook) -> None:
    free = threading.Event()
    ar = nb.rc[0].apply_async(time.sleep, 0.5)
    ar.add_done_callback(lambda _: free.set())
    assert nb.rc.queue_status()[1] == {
        "queue": 0,
        "completed": nb.rc.queue_status(1)["completed"],
        "tasks": 0,
    }
    assert not free.is_set()
    ar.get(SOON)
