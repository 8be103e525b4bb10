"""Engines, clients and controllers that die, users who interrupt; and what is idle, or goes on for long."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

import hpcremote
from hpcremote.wire.lastwords import MARK
from tests.integration.support import PATIENCE, Notebook, Running, eventually, has_ended, open_gate, script

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

#: A death has to be told within a second; a busy machine is given this.
SOON = 10.0
#: As between two machines: TCP and CURVE.
REMOTE = {"profile": "local", "ipc": False, "shm": False}

# ---------------------------------------------------------------- engines

DEATHS = {
    "exit": ("import os; os._exit(3)", r"os\._exit\(3\)"),
    "SIGKILL": ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
    "SIGTERM": ("import os, time; os.kill(os.getpid(), 15); time.sleep(60)", "terminated by SIGTERM"),
    "segfault": ("import ctypes; ctypes.string_at(0)", r"segmentation fault \(SIGSEGV\)"),
    "abort": ("import os; os.abort()", r"aborted \(SIGABRT\)"),
}
DIE = "def die():\n    open(gate).close()\n    print('I feel faint')\n    "


@pytest.fixture
def gate(tmp_path: Path) -> Callable[[], None]:
    """What ``die`` waits for: the other end of a pipe, whose name is ``gate`` on the engine."""
    os.mkfifo(tmp_path / "gate")
    return lambda: open_gate(tmp_path / "gate")


def dies(ar: hpcremote.AsyncResult, engine: int, cause: str) -> hpcremote.EngineError:
    """Wait for the end of a call whose engine dies; return its error, having looked at it."""
    began = time.monotonic()
    with pytest.raises(hpcremote.EngineError) as caught:
        ar.get(SOON)
    print(f"{cause}: known after {time.monotonic() - began:.3f} s")
    error = caught.value
    said = str(error)
    assert error.engine_id == engine
    assert said.startswith(f"engine {engine} ")
    assert re.search(cause, error.cause), error.cause
    assert error.cause in said
    return error


@pytest.mark.parametrize("death", DEATHS)
def test_an_engine_that_dies_is_named_with_its_cause_and_last_output(
    start: Callable[..., Running], notebook: Notebook, death: str, gate: Callable[[], None], tmp_path: Path
) -> None:
    code, cause = DEATHS[death]
    running = start(n=2, profile="local")
    rc = running.rc
    rc[:].push({"gate": str(tmp_path / "gate")}, block=True)
    ar = rc[0].apply_async(notebook(DIE + code).die)
    queued = rc[0].apply_async(abs, -1)
    both = rc[:].apply_async(abs, -2)
    gate()
    error = dies(ar, 0, cause)
    assert "I feel faint" in error.output and "I feel faint" in str(error)
    assert MARK not in error.output, "how it ended is in the cause, and not among what the user's code wrote"
    assert "die" in str(error)
    with pytest.raises(hpcremote.EngineError, match="engine 0 "):
        queued.get(SOON)
    with pytest.raises(hpcremote.CompositeError, match="1 of 2 engines: EngineError") as caught:
        both.get(SOON)
    assert caught.value.elist[0][3]["engine_id"] == 0
    assert both.get(return_exceptions=True)[1] == 2  # what the other one answered is not lost
    # The other one lives, and the dead one is told from one that never was.
    assert rc.ids == [1]
    assert rc[:].apply_sync(os.getpid) == [running.engines[1].pid]
    with pytest.raises(IndexError, match="there is no engine 0; there are: 1"):
        rc[0]
    eventually(lambda: has_ended(running.engines[0]))


def test_an_exit_that_is_called_by_reference(start: Callable[..., Running]) -> None:
    dies(start(n=1, profile="local").rc[0].apply_async(os._exit, 3), 0, r"os\._exit\(3\)")


def test_a_view_of_an_engine_that_died(start: Callable[..., Running]) -> None:
    running = start(n=2, profile="local")
    view, both = running.rc[0], running.rc[:]
    running.engines[0].kill()
    assert running.rc.link.wait(lambda: running.rc.ids == [1], SOON)
    for use in (lambda: view.apply_sync(abs, -1), lambda: both.apply_sync(abs, -1), lambda: view["x"]):
        with pytest.raises((hpcremote.EngineError, IndexError), match="engine 0"):
            use()
    assert running.rc.direct_view("all").apply_sync(abs, -1) == [1]


def test_sys_exit_ends_the_call_and_not_the_engine(mpi4: Running, notebook: Notebook) -> None:
    notebook("import sys\ndef leave():\n    sys.exit('enough')")
    with pytest.raises(hpcremote.RemoteError, match="^SystemExit") as caught:
        mpi4.rc[0].apply_async(notebook.leave).get(SOON)
    assert type(caught.value.__cause__) is SystemExit
    with pytest.raises(hpcremote.RemoteError, match="^SystemExit"):
        mpi4.rc[0].execute("raise SystemExit(3)").get(SOON)
    with pytest.raises(hpcremote.RemoteError, match="^KeyboardInterrupt"):
        mpi4.rc[0].execute("raise KeyboardInterrupt").get(SOON)
    assert mpi4.rc[0].apply_sync(os.getpid) == mpi4.engines[0].pid


@pytest.mark.openmpi
@pytest.mark.parametrize("death", ["exit", "SIGKILL", "segfault"])
def test_a_rank_that_dies_and_what_becomes_of_the_others(
    start: Callable[..., Running], notebook: Notebook, death: str, gate: Callable[[], None], tmp_path: Path
) -> None:
    """The launcher ends the others, by SIGKILL (MPICH) or SIGTERM (Open MPI): calls fail, and why is said."""
    code, cause = DEATHS[death]
    running = start(n=3, profile="mpi")
    rc = running.rc
    by = "SIGTERM" if rc.link.engines[0].mpi.startswith("Open MPI") else "SIGKILL"
    rc[:].push({"gate": str(tmp_path / "gate")}, block=True)
    waiting = rc[0].apply_async(time.sleep, 60)
    ar = rc[1].apply_async(notebook(DIE + code).die)
    gate()
    error = dies(ar, 1, cause)
    assert "rank 1" in str(error)
    assert "I feel faint" in error.output
    with pytest.raises(hpcremote.EngineError, match="engine 0 ") as caught:
        waiting.get(SOON)
    assert caught.value.engine_id == 0
    assert by in caught.value.cause
    # One that says why it died is always told as the first.
    # Where the first died by SIGKILL, too, and all are seen in one moment, nobody knows which it was.
    if death != "SIGKILL":
        assert "after engine 1 of the same MPI job: " in str(caught.value)
    assert rc.link.wait(lambda: rc.ids == [], SOON)
    with pytest.raises(hpcremote.NoEnginesRegistered):
        rc[0]


@pytest.mark.openmpi
def test_the_rank_that_called_mpi_abort_is_named(start: Callable[..., Running]) -> None:
    def give_up() -> None:
        from mpi4py import MPI

        if MPI.COMM_WORLD.rank == 2:
            MPI.COMM_WORLD.Abort(7)
        MPI.COMM_WORLD.Barrier()

    running = start(n=4, profile="mpi")
    result = running.rc[:].apply_async(give_up)
    with pytest.raises(hpcremote.CompositeError) as caught:
        result.get(PATIENCE)
    causes = [error.cause for error in caught.value.errors]
    assert causes[2] == "it called MPI_Abort(7)"
    for cause in (causes[0], causes[1], causes[3]):
        assert cause.endswith("after engine 2 of the same MPI job: it called MPI_Abort(7)")
    first, _, _ = str(caught.value).partition("\n")
    assert (
        "4 of 4 engines: EngineError(engine 2 " in first and "it called MPI_Abort(7)) on engine 2; " in first
    )


def test_a_rank_that_dies_while_all_are_in_a_collective(
    start: Callable[..., Running], notebook: Notebook
) -> None:
    running = start(n=2, profile="mpi")
    notebook("""
    def work():
        import os, signal
        from mpi4py import MPI
        comm = MPI.COMM_WORLD
        if comm.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        comm.Barrier()
    """)
    began = time.monotonic()
    with pytest.raises(hpcremote.CompositeError, match="2 of 2 engines") as caught:
        running.rc[:].apply_async(notebook.work).get(SOON)
    print(f"known after {time.monotonic() - began:.3f} s")
    assert [type(error) for error in caught.value.errors] == [hpcremote.EngineError] * 2
    assert "killed by SIGKILL" in str(caught.value.errors[1])


def test_an_engine_that_is_frozen_does_not_hold_up_the_others(start: Callable[..., Running]) -> None:
    running = start(n=2, profile="local")
    running.engines[0].suspend()
    try:
        held = running.rc[0].apply_async(abs, -1)
        assert running.rc[1].apply_async(abs, -2).get(SOON) == 2
        assert running.rc.queue_status(0)["queue"] == 1
        assert not held.ready()
    finally:
        running.engines[0].resume()
    assert held.get(SOON) == 1


# ---------------------------------------------------------------- clients

BUSY_CLIENT = """
import sys, time
import numpy
import hpcremote
rc = hpcremote.Client(sys.argv[1])
rc[:].execute("ran = 0", block=True)
def step(data):
    global ran
    ran += 1
    time.sleep(0.3)
import time
ars = [rc[:].apply_async(step, numpy.ones(1_000_000)) for _ in range(50)]
while not any(ars[0].started):
    ars[0].wait(0.05)
    if any(one["queue"] for one in rc.queue_status().values() if isinstance(one, dict)):
        break
print("busy", flush=True)
ars[-1].get()
"""


def test_a_client_that_is_killed_leaves_nothing_behind(mpi4: Running) -> None:
    rc = mpi4.rc
    clients = rc.link.query("info")["clients"]
    shm = Path(rc.link.welcome.shm)
    ran = script(BUSY_CLIENT, str(mpi4.client_file()))
    assert ran.stdout is not None
    assert ran.stdout.readline() == "busy\n"
    assert rc.link.query("info")["clients"] == clients + 1
    assert list(shm.glob("[0-9a-f]" * 32)) != []  # arguments of the calls in its queue
    ran.kill()
    ran.communicate()
    # What had begun runs to its end, what was queued is dropped, and others are served.
    took = eventually(lambda: rc.link.query("info")["clients"] == clients, SOON)
    print(f"its end was known after {took:.3f} s")
    assert rc[:].apply_async(abs, -1).get(SOON) == [1] * 4
    assert max(rc[:]["ran"]) < 20  # of 50
    assert rc.link.query("info")["calls"] == 0
    eventually(lambda: list(shm.glob("[0-9a-f]" * 32)) == [], SOON, "blobs are left")


def test_a_client_that_leaves_without_waiting(mpi4: Running) -> None:
    rc = mpi4.new_client()
    ars = [rc[0].apply_async(time.sleep, 0.2) for _ in range(30)]
    assert not ars[-1].ready()
    rc.close()
    with pytest.raises(hpcremote.NotConnected, match="this client is closed"):
        ars[-1].get(SOON)
    began = time.monotonic()
    assert mpi4.rc[0].apply_async(abs, -1).get(SOON) == 1
    assert time.monotonic() - began < 3


# ---------------------------------------------------------------- controllers


@pytest.mark.parametrize(
    "options", [{"profile": "local"}, {"profile": "mpi"}, REMOTE], ids=["local", "mpi", "tcp"]
)
def test_a_controller_that_is_killed(start: Callable[..., Running], options: dict[str, Any]) -> None:
    running = start(n=2, controller_timeout=2.0, **options)
    rc = running.rc
    busy = rc[0].apply_async(time.sleep, 60)
    blocked: list[BaseException | None] = []
    thread = threading.Thread(
        target=lambda: blocked.append(rc[1].apply_async(time.sleep, 60).exception(SOON))
    )
    thread.start()
    eventually(lambda: rc.queue_status(1)["queue"] == 1, SOON)
    began = time.monotonic()
    running.controller.kill()
    with pytest.raises(hpcremote.NotConnected) as caught:
        busy.get(SOON)
    print(f"the client knew after {time.monotonic() - began:.3f} s")
    said = str(caught.value)
    assert f"(pid {running.controller.pid} on " in said and "went away" in said
    thread.join(SOON)
    assert [type(one) for one in blocked] == [hpcremote.NotConnected]
    with pytest.raises(hpcremote.NotConnected, match="went away"):
        rc[0].apply_sync(abs, -1)
    _gone, alive = psutil.wait_procs(list(running.engines.values()), timeout=2 + 10)
    took = time.monotonic() - began
    print(f"the engines ended after {took:.1f} s")
    assert alive == []
    assert took >= 1.5, "the engines did not wait for their controller to come back"


@pytest.mark.parametrize("options", [{"profile": "local"}, REMOTE], ids=["local", "tcp"])
def test_idle_engines_whose_controller_is_killed(
    start: Callable[..., Running], options: dict[str, Any]
) -> None:
    running = start(n=2, controller_timeout=1.0, **options)
    running.controller.kill()
    _, alive = psutil.wait_procs(list(running.engines.values()), timeout=SOON)
    assert alive == []


# ---------------------------------------------------------------- Ctrl-C

INTERRUPTED = """
import sys, time
import hpcremote
rc = hpcremote.Client(sys.argv[1])
rounds = int(sys.argv[2])
raised = 0
for count in range(rounds):
    ar = rc[0].apply_async(lambda x: (__import__("time").sleep(0.05), x)[1], count)
    try:
        print("waiting", flush=True)
        while True:
            ar.get() if count % 2 else rc[:].apply_sync(int, count)
    except KeyboardInterrupt:
        raised += 1
    assert rc[1].apply_sync(abs, -count) == count
    assert rc[:].apply_sync(abs, -count) == [count] * len(rc)
    assert ar.get(20) == count
print("raised", raised, flush=True)
"""


def interrupt(code: str, running: Running, rounds: int) -> None:
    """Run a client that says "waiting" in each round, and send it SIGINT each time."""
    ran = script(code, str(running.client_file()), str(rounds))
    assert ran.stdout is not None
    for _ in range(rounds):
        assert ran.stdout.readline() == "waiting\n", ran.communicate(timeout=PATIENCE)
        ran.send_signal(signal.SIGINT)
    out, err = ran.communicate(timeout=PATIENCE)
    assert (out, err, ran.returncode) == (f"raised {rounds}\n", "", 0)


def test_ctrl_c_in_a_blocked_client_leaves_it_usable(mpi4: Running) -> None:
    interrupt(INTERRUPTED, mpi4, 60)


def test_ctrl_c_in_a_blocked_client_over_tcp(start: Callable[..., Running]) -> None:
    interrupt(INTERRUPTED, start(n=2, **REMOTE), 30)


INTERRUPTED_TRANSFER = """
import sys
import numpy
import hpcremote
rc = hpcremote.Client(sys.argv[1])
rounds = int(sys.argv[2])
data = numpy.arange(1_000_000)
raised = 0
for count in range(rounds):
    try:
        print("waiting", flush=True)
        while True:
            rc[0].push({"x": data}, block=True)
            assert rc[1].apply_sync(lambda x: x, data)[-1] == 999_999
    except KeyboardInterrupt:
        raised += 1
    data[0] = count
    assert rc[:].apply_sync(lambda x: x[0], data) == [count] * 2
print("raised", raised, flush=True)
"""


@pytest.mark.parametrize(
    "options", [{}, {"shm": False}, {"ipc": False, "shm": False}], ids=["shared-memory", "socket", "tcp"]
)
def test_ctrl_c_while_much_is_sent(start: Callable[..., Running], options: dict[str, Any]) -> None:
    interrupt(INTERRUPTED_TRANSFER, start(n=2, profile="local", **options), 20)


INTERRUPTED_IN_A_GET = """
import sys
import hpcremote
rc = hpcremote.Client(sys.argv[1])
ar = rc[0].apply_async(__import__("time").sleep, 1)
try:
    print("waiting", flush=True)
    ar.get()
except KeyboardInterrupt:
    print("interrupted", ar.ready(), flush=True)
print(ar.get(), rc[0].apply_sync(abs, -1))
"""


def test_ctrl_c_interrupts_at_once(mpi4: Running) -> None:
    ran = script(INTERRUPTED_IN_A_GET, str(mpi4.client_file()))
    assert ran.stdout is not None
    assert ran.stdout.readline() == "waiting\n"
    # It is blocked when its main thread sleeps in poll; to interrupt it earlier would prove less.
    client = psutil.Process(ran.pid)
    eventually(lambda: client.status() == psutil.STATUS_SLEEPING)
    ran.send_signal(signal.SIGINT)
    assert ran.stdout.readline() == "interrupted False\n"
    assert ran.communicate(timeout=PATIENCE)[0] == "None 1\n"


def test_ctrl_c_without_anybody_to_catch_it_ends_the_client(mpi4: Running) -> None:
    ran = script(
        "import sys, hpcremote\nrc = hpcremote.Client(sys.argv[1])\nprint('waiting', flush=True)\n"
        "rc[0].apply_sync(__import__('time').sleep, 0.5)",
        str(mpi4.client_file()),
    )
    assert ran.stdout is not None
    assert ran.stdout.readline() == "waiting\n"
    ran.send_signal(signal.SIGINT)
    _, err = ran.communicate(timeout=PATIENCE)
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert ran.returncode in (-signal.SIGINT, 130, 1)


# ---------------------------------------------------------------- one order

ALLREDUCE = """
def total(x):
    from mpi4py import MPI
    return MPI.COMM_WORLD.allreduce(x + MPI.COMM_WORLD.rank)
def gathered(x):
    from mpi4py import MPI
    return MPI.COMM_WORLD.allgather((x, MPI.COMM_WORLD.rank))
"""


def test_collectives_of_two_clients_and_two_threads_each_do_not_mix(
    mpi4: Running, notebook: Notebook
) -> None:
    notebook(ALLREDUCE)
    calls = 150
    other = mpi4.new_client()

    def work(client: hpcremote.Client, seed: int) -> list[tuple[int, Any]]:
        view, part = client[:], client[::2]
        wrong = []
        for count in range(calls):
            x = seed * 1000 + count
            if count % 3 == 0:
                part.apply_async(abs, -1)  # overlapping views get between them
            if count % 2:
                got, right = view.apply_sync(notebook.total, x), [4 * x + 6] * 4
            else:
                got, right = view.apply_sync(notebook.gathered, x), [[(x, rank) for rank in range(4)]] * 4
            if got != right:
                wrong.append((x, got))
        return wrong

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, client, seed) for seed, client in enumerate([mpi4.rc, other] * 2)]
        assert [future.result(PATIENCE * 2) for future in futures] == [[], [], [], []]
    other.close()


def test_collectives_without_waiting_come_in_the_order_of_the_calls(
    mpi4: Running, notebook: Notebook
) -> None:
    notebook(ALLREDUCE)
    ars = [mpi4.rc[:].apply_async(notebook.total, x) for x in range(300)]
    assert [ar.get(PATIENCE) for ar in ars] == [[4 * x + 6] * 4 for x in range(300)]


# ---------------------------------------------------------------- for long, and for nothing


def rss(processes: list[psutil.Process]) -> list[int]:
    return [process.memory_info().rss >> 10 for process in processes]


@pytest.mark.slow
def test_many_small_calls_leave_memory_flat(start: Callable[..., Running]) -> None:
    running = start(n=2, profile="mpi")
    processes = [psutil.Process(), running.controller, *running.engines.values()]
    view, one = running.rc[:], running.rc[0]

    def calls(count: int) -> None:
        for at in range(0, count, 1000):
            ars = [one.apply_async(abs, -x) for x in range(at, at + 900)]
            both = [view.apply_async(abs, -x) for x in range(50)]
            assert ars[-1].get(PATIENCE) == at + 899
            assert [ar.get(PATIENCE) for ar in both][-1] == [49, 49]
            for x in range(50):
                assert one.apply_sync(abs, -x) == x

    calls(20_000)  # histories, caches and allocators fill up
    before = rss(processes)
    began = time.monotonic()
    calls(100_000)
    after = rss(processes)
    print(f"100,000 calls in {time.monotonic() - began:.1f} s; KiB before {before}, after {after}")
    assert all(new - old < 4096 for old, new in zip(before, after, strict=True)), (before, after)


@pytest.mark.slow
def test_many_large_calls_leave_memory_flat(start: Callable[..., Running]) -> None:
    np = pytest.importorskip("numpy")
    running = start(n=2, profile="local")
    processes = [psutil.Process(), running.controller, *running.engines.values()]
    data = np.arange(2_000_000)

    def calls(count: int) -> None:
        for _ in range(count):
            assert len(running.rc[0].apply_sync(lambda x: x, data)) == len(data)

    calls(5)
    before = rss(processes)
    calls(40)
    after = rss(processes)
    print(f"KiB before {before}, after {after}")
    assert all(new - old < 24 << 10 for old, new in zip(before, after, strict=True)), (before, after)
    shm = Path(running.rc.link.welcome.shm)
    assert list(shm.glob("[0-9a-f]" * 32)) == []


def busy(processes: list[psutil.Process]) -> list[float]:
    return [sum(process.cpu_times()[:2]) for process in processes]


@pytest.mark.parametrize("waiting", [True, False], ids=["blocked-in-get", "at-the-prompt"])
def test_who_is_idle_burns_nothing(mpi2: Running, waiting: bool) -> None:
    processes = [psutil.Process(), mpi2.controller, *mpi2.engines.values()]
    held = mpi2.rc[0].apply_async(time.sleep, 2.3) if waiting else None
    assert mpi2.rc[1].apply_sync(abs, -1) == 1
    before = busy(processes)
    if held is not None:
        with pytest.raises(TimeoutError):
            held.get(2.0)
    else:
        assert not threading.Event().wait(2.0)
    spent = [new - old for old, new in zip(before, busy(processes), strict=True)]
    if held is not None:
        del spent[2]  # looks for output of the call that it runs
        held.get(SOON)
    # One tick of the clock that counts (10 ms) is what cannot be told from nothing.
    assert max(spent) <= 0.02, spent


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("profile", ["mpi", "local"])
def test_nothing_is_left_when_a_cluster_ends(start: Callable[..., Running], profile: str) -> None:
    """``Running.stop`` itself looks for processes, sockets, shared memory and files."""
    running = start(n=2, profile=profile)
    everything = running.processes()
    assert len(everything) >= 3
    running.rc[:].push({"x": bytes(3 << 20)}, block=True)
    running.stop()
    assert [process for process in everything if not has_ended(process)] == []


def test_nothing_is_left_when_calls_run_at_the_end(start: Callable[..., Running]) -> None:
    running = start(n=2, profile="mpi")
    ars = [running.rc[:].apply_async(time.sleep, 60) for _ in range(10)]
    assert not ars[0].ready()
    began = time.monotonic()
    running.stop()
    print(f"stopped in {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 15
    with pytest.raises(hpcremote.NotConnected):
        ars[0].get(0)


def test_nothing_is_left_when_a_child_of_an_engine_lives_on(start: Callable[..., Running]) -> None:
    running = start(n=1, profile="local")
    sleeper = "import time; time.sleep(60)"
    code = f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', '{sleeper}'])"
    running.rc[0].execute(code, block=True)
    child = psutil.Process(running.rc[0]["child.pid"])
    running.stop()
    assert has_ended(child)


def test_the_python_of_engines_is_ours(mpi4: Running) -> None:
    assert mpi4.rc[:]["__import__('sys').executable"] == [sys.executable] * 4
