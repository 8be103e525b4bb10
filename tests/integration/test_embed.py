"""Programs that lend their ranks: ``hpcremote.embed()`` under a real mpiexec, with a real controller."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import hpcremote
from hpcremote import files
from tests.integration.support import (
    MANNERS,
    PATIENCE,
    ROOT,
    environment,
    eventually,
    has_ended,
    open_gate,
    python,
)
from tests.test_docs import CAPTION, blocks

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

KERNEL = tuple(map(int, platform.release().split("-")[0].split(".")[:2]))
#: What every program here begins with.
HEAD = """
import os, signal, sys
import hpcremote
from mpi4py import MPI
comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
def say(*words):  # in one piece: mpiexec mixes what its ranks write
    sys.stdout.write(" ".join(map(str, words)) + "\\n")
    sys.stdout.flush()
"""
#: A simulation in whose steps the ranks need each other; ``running`` ends it.
STEPS = """
nu, step, running = 0.5, 0, True
with hpcremote.embed(block=False) as steer:
    while running:
        step += 1
        assert comm.allreduce(step) == size * step, "the ranks are not at the same step"
        steer.poll()
"""


class Controller:
    """A controller without engines, for programs that come by themselves."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.process = python(
            "-m", "hpcremote", "controller", "--set", "controller_timeout=3", stderr=subprocess.DEVNULL
        )
        path = files.cluster_dir("default", "default") / "client.json"
        mine = f'"pid": {self.process.pid}'
        eventually(lambda: path.exists() and mine in path.read_text(), why="no controller")
        self.shm = json.loads(path.read_text())["shm"]

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE)
        if number == signal.SIGKILL:  # it could not remove that itself
            shutil.rmtree(self.shm)


@pytest.fixture
def controller(session_home: Path) -> Iterator[Controller]:
    made = Controller()
    yield made
    if made.process.poll() is None:
        made.stop()


@pytest.fixture
def client(controller: Controller) -> Iterator[Callable[[int], hpcremote.Client]]:
    """A client that waits until so many engines are there."""
    clients: list[hpcremote.Client] = []

    def connect(n: int) -> hpcremote.Client:
        rc = hpcremote.Client()
        clients.append(rc)
        rc.wait_for_engines(n, timeout=PATIENCE)
        return rc

    yield connect
    for rc in clients:
        rc.close()


def mpiexec(n: int) -> list[str]:
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec")
    return ["timeout", "-k", "5", "100", found, "-n", str(n)]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program under mpiexec; nothing of it is left at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, n: int = 2, head: str = HEAD, **env: str) -> subprocess.Popen[str]:
        env = {"PYTHONUNBUFFERED": "", **MANNERS} | env  # so that there is something in a buffer
        path = tmp_path / f"program{len(started)}.py"
        path.write_text(head + textwrap.dedent(code))
        words = [*(mpiexec(n) if n else []), sys.executable, str(path)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(words, text=True, env=environment(**env), **pipes))
        return started[-1]

    yield begin
    for one in started:
        if one.poll() is None:
            one.terminate()
            one.communicate(timeout=PATIENCE)


def end(process: subprocess.Popen[str]) -> tuple[list[str], str]:
    """Wait for the end of a program that has to end well; return its lines, sorted, and its complaints."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    return sorted(out.splitlines()), err


# ---------------------------------------------------------------- blocking


@pytest.mark.openmpi
def test_a_program_serves_until_it_is_resumed(program, client, notebook) -> None:
    running = program("""
        def mine(number, frame): pass
        signal.signal(signal.SIGINT, mine)
        at, main, streams = [1, 2], sys.modules["__main__"], (sys.stdout, sys.stderr)
        options = sys.stdout.line_buffering, sys.stdout.encoding, sys.stdout.errors
        say("before", rank)
        why = hpcremote.embed()
        assert signal.getsignal(signal.SIGINT) is mine
        assert (sys.stdout, sys.stderr) == streams and sys.modules["__main__"] is main
        assert (sys.stdout.line_buffering, sys.stdout.encoding, sys.stdout.errors) == options
        say("after", rank, at, comm.allreduce(1), why)
        os.system("echo child")
    """)
    rc = client(2)
    view = rc[:]
    assert view["rank"] == [0, 1]
    view["at"] = "client"
    notebook("""
        import hpcremote, os, signal, time
        def inside():
            print("inside", rank)
            os.system("echo C")
            return comm.allreduce(rank)
    """)
    said = view.apply_async(notebook.inside)
    assert said.get(PATIENCE) == [1, 1]
    assert said.stdout == ["inside 0\nC\n", "inside 1\nC\n"]
    assert view["signal.getsignal(2).__name__"] == ["_on_sigint"] * 2
    with pytest.raises(hpcremote.CompositeError, match="leaves out engines 1"):
        rc[[0]].apply_sync(hpcremote.resume)
    view.apply_sync(hpcremote.resume)
    lines, err = end(running)
    assert lines == [
        "after 0 client 2 a client has resumed it", "after 1 client 2 a client has resumed it",
        "before 0", "before 1", "child", "child",
    ]  # fmt: skip
    assert err == ""
    eventually(lambda: rc.ids == [], why="the engines were still listed")


def test_ending_the_set_lets_the_program_go_on_and_it_can_come_back(program, client) -> None:
    running = program("""
        for _ in range(2):
            why = hpcremote.embed(namespace={"value": rank * 10})
        say(why)
    """)
    rc = client(2)
    first = rc[:]["value"]
    uids = {info.uid for info in rc.link.engines.values()}
    rc.shutdown([0, 1], block=True)
    eventually(lambda: len(rc.ids) == 2 and uids.isdisjoint(i.uid for i in rc.link.engines.values()))
    assert rc[:]["value"] == first == [0, 10]
    rc[:].apply_sync(hpcremote.resume)
    assert end(running)[0] == ["a client has resumed it"] * 2


# ---------------------------------------------------------------- seen from outside


def agents_of(rc: hpcremote.Client) -> list[psutil.Process]:
    """Return the node agents of a cluster that run here."""
    log = str(files.runtime_dir() / rc.link.connection.cluster_uid[:16] / "agent.log")
    found = []
    for one in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if (
                one.cmdline()[1:4] == ["-m", "hpcremote", "agent"]
                and os.readlink(f"/proc/{one.pid}/fd/2") == log
            ):
                found.append(one)
    return found


def in_c(view: hpcremote.DirectView, line: int) -> bool:
    stacks = view.stacks()
    frames = stacks[1].frames
    return bool(frames) and frames[-1].line == line and stacks[0].doing == "in Barrier"


@pytest.mark.openmpi
@pytest.mark.parametrize("polls", [True, False])
def test_a_rank_that_is_stuck_in_c_is_seen(program, client, notebook, tmp_path: Path, polls: bool) -> None:
    running = program(STEPS if polls else "hpcremote.embed()\n")
    rc = client(2)
    view = rc[:]
    notebook("""
        import hpcremote
        def stuck(gate):
            import ctypes
            comm = hpcremote.comm()
            libc = ctypes.PyDLL(None)
            if comm.rank == 1:
                libc.close(libc.open(gate.encode(), 0))
                return comm.allreduce(1)
            comm.Barrier()
    """)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    call = view.apply_async(notebook.stuck, str(gate))
    line = notebook.stuck.__code__.co_firstlineno + 5
    eventually(lambda: in_c(view, line), why=str(view.stacks()))
    assert list(view.stacks().text) == [0, 1]
    (agent,) = agents_of(rc)
    agent.kill()
    eventually(lambda: has_ended(agent))
    open_gate(gate)
    said = "rank 0 is in Barrier, rank 1 in allreduce"
    eventually(lambda: any(said in one for one in view.stacks().mismatches), why=str(view.stacks()))
    call.abort()
    assert [one.ename for one in call.exception(PATIENCE).errors] == ["KeyboardInterrupt"] * 2
    view["running"] = False
    if not polls:
        view.apply_sync(hpcremote.resume)
    end(running)
    eventually(lambda: agents_of(rc) == [], why="the agent did not end")


def test_between_calls_a_program_shows_where_it_is(program, client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    running = program(f"""
        steer = hpcremote.embed(block=False)
        def step():
            if rank == 0:
                open({str(gate)!r}).close()
            steer.poll()
        step()
        steer.close()
    """)
    view = client(2)[:]
    eventually(lambda: view.stacks()[0].frames and view.stacks()[1].doing == "in poll")
    assert [stack.frames[-1].function for stack in view.stacks().by_engine.values()] == ["step", "step"]
    open_gate(gate)
    end(running)


def test_a_program_that_has_left_is_watched_no_more(program, client, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    running = program(f"""
        for _ in range(2):
            hpcremote.embed()
            if rank == 0:
                open({str(gate)!r}).close()
            comm.Barrier()
        os.kill(os.getpid(), signal.SIGRTMIN + 11)  # one that comes late
        say("the end")
    """)
    rc = client(2)
    for _ in range(2):
        rc.wait_for_engines(2, timeout=PATIENCE)
        view = rc[:]
        eventually(lambda: str(view.stacks()) == "ranks 0-1 waiting for work")  # noqa: B023
        (agent,) = agents_of(rc)
        view.apply_sync(hpcremote.resume)
        eventually(lambda: has_ended(agent), why="the agent did not end")  # noqa: B023
        assert agents_of(rc) == []
        eventually(lambda: rc.ids == [])
        open_gate(gate)
    assert end(running)[0] == ["the end"] * 2


def test_how_a_rank_of_a_program_ended_is_told(program, client) -> None:
    """By the kernel, which Linux before 6.15 keeps to the parent."""
    running = program("hpcremote.embed()\n", n=1)
    rc = client(1)
    eventually(lambda: str(rc[0].stacks()) == "rank 0 waiting for work")  # the agent is there
    call = rc[0].apply_async(os.kill, rc[0].apply_sync(os.getpid), signal.SIGKILL)
    error = call.exception(PATIENCE)
    assert isinstance(error, hpcremote.EngineError)
    assert ("killed by SIGKILL" in str(error)) == (KERNEL >= (6, 15)), error
    running.communicate(timeout=PATIENCE)
    eventually(lambda: agents_of(rc) == [], why="the agent did not end")
    (shm,) = [Path(rc.link.connection.shm)]
    assert not list(shm.glob("*.stacks")) + list(shm.glob("*.notes"))


# ---------------------------------------------------------------- between steps


@pytest.mark.openmpi
def test_calls_meet_all_ranks_at_the_same_step(program, client, notebook) -> None:
    running = program(STEPS, n=3)
    rc = client(3)
    notebook("""
        def where():
            return step
        def together():
            return comm.allreduce(1), step
        def theirs():
            import hpcremote
            return hpcremote.comm().allgather(rank)
    """)

    def look(*ids: int) -> set[tuple[int, ...]]:
        view = rc[list(ids)]
        answers = [view.apply_async(notebook.where) for _ in range(15)]
        return {tuple(answer.get(PATIENCE)) for answer in answers}

    views = [(0, 1, 2), (1, 2), (2, 1), (0, 2), (1,), (2, 0, 1)]
    with ThreadPoolExecutor(3) as pool:
        seen = [one for some in pool.map(lambda ids: look(*ids), views) for one in some]
    assert len(seen) >= len(views)
    assert [one for one in seen if len(set(one)) > 1] == []
    everyone = rc[:]
    answers = [everyone.apply_async(notebook.together) for _ in range(20)]
    assert all(len(set(answer.get(PATIENCE))) == 1 and answer.get()[0][0] == 3 for answer in answers)
    assert rc[[2, 0]].apply_sync(notebook.theirs) == [[2, 0]] * 2
    assert everyone.apply_sync(notebook.theirs) == [[0, 1, 2]] * 3
    everyone.push({"big": bytes(10_000_000)}, block=True)
    assert everyone["len(big)"] == [10_000_000] * 3
    everyone["running"] = False
    end(running)


def test_a_client_steers_and_what_is_printed_goes_where_it_belongs(program, client, notebook) -> None:
    running = program(STEPS.replace("steer.poll()", """steer.poll()
        if nu == 0.9:
            say("the program sees nu", nu)
            os.system("echo child of the program")
            running = False
    """))  # fmt: skip
    rc = client(2)
    view = rc[:]
    said = view.apply_async(notebook("def show(): print('in a call', nu)").show)
    said.get(PATIENCE)
    assert said.stdout == ["in a call 0.5\n"] * 2
    view["nu"] = 0.9
    assert end(running) == (["child of the program"] * 2 + ["the program sees nu 0.9"] * 2, "")


def test_attributes_of_an_object_are_variables_and_clear_leaves_them(program, client) -> None:
    running = program("""
        class Simulation:
            def __init__(self):
                self.nu, self.running = 0.5, True
            def run(self):
                with hpcremote.embed(block=False, namespace=vars(self)) as steer:
                    while self.running:
                        steer.poll(timeout=0.1)
        simulation = Simulation()
        simulation.run()
        say(sorted(vars(simulation).items()))
    """)
    rc = client(2)
    view = rc[:]
    view.execute("def double(): return 2 * nu\nextra = double()", block=True)
    assert view["nu, extra, double()"] == [(0.5, 1.0, 1.0)] * 2
    view["nu"] = 0.7
    rc.clear(block=True)
    assert view["nu"] == [0.7, 0.7]
    with pytest.raises(hpcremote.CompositeError, match="NameError"):
        view["extra"]
    view["running"] = False
    assert end(running)[0] == ["[('nu', 0.7), ('running', False)]"] * 2


def test_an_interrupt_meets_the_call_and_not_the_program(program, client, notebook, tmp_path: Path) -> None:
    running = program(STEPS + 'say("the end")\n')
    rc = client(2)
    view = rc[:]

    notebook("""
        def endless(folder):
            (folder / str(rank)).touch()
            while True:
                pass
    """)
    stuck = view.apply_async(notebook.endless, tmp_path)
    eventually(lambda: all((tmp_path / name).exists() for name in "01"))
    waiting = view.apply_async(abs, 1)
    waiting.abort()
    for info in rc.link.engines.values():
        os.kill(info.pid, signal.SIGINT)
    with pytest.raises(hpcremote.CompositeError, match="KeyboardInterrupt"):
        stuck.get(PATIENCE)
    with pytest.raises(hpcremote.HPCRemoteError, match="abort"):
        waiting.get(PATIENCE)
    assert len(set(view["step"])) == 1
    view["running"] = False
    assert end(running)[0] == ["the end", "the end"]


def test_a_client_ends_the_steering_of_all_ranks_at_one_step(program, client) -> None:
    running = program(STEPS.replace("while running:", "while not steer.closed:") + "say(step)\n")
    view = client(2)[:]
    view.apply_sync(hpcremote.resume)
    lines, _ = end(running)
    assert len(lines) == 2 and len(set(lines)) == 1


def test_a_program_that_just_ends_says_so(program, client, tmp_path: Path) -> None:
    running = program("""
        steer, gates = hpcremote.embed(block=False), ()
        while not gates:
            steer.poll(timeout=0.1)
        for gate in gates:
            open(gate).close()
    """)
    rc = client(2)
    gates = [tmp_path / "first0", tmp_path / "first1", tmp_path / "last0", tmp_path / "last1"]
    for gate in gates:
        os.mkfifo(gate)
    rc[1].push({"gates": gates[1::2]}, block=True)
    rc[0].push({"gates": gates[::2]}, block=True)
    open_gate(gates[0])
    left = rc[0].apply_async(abs, 1)
    for gate in gates[1:]:
        open_gate(gate)
    with pytest.raises(hpcremote.EngineError, match="its program ended"):
        left.get(PATIENCE)
    end(running)


def test_ranks_of_one_communicator(program, client) -> None:
    running = program("""
        half = comm.Split(rank % 2)
        if rank % 2:
            hpcremote.embed(comm=half)
        say(rank, comm.allreduce(1))
    """, n=4)  # fmt: skip
    rc = client(2)
    assert rc[:]["rank"] == [1, 3]
    rc[:].apply_sync(hpcremote.resume)
    assert end(running)[0] == ["0 4", "1 4", "2 4", "3 4"]


def test_a_program_without_mpi(program, client) -> None:
    running = program("""
        import hpcremote, sys
        steps, running = 0, True
        steer = hpcremote.embed(block=False)
        while running:
            steps += 1
            steer.poll(timeout=0.05)
        steer.close()
        assert "mpi4py" not in sys.modules
    """, n=0, head="", HPCREMOTE_MPI="0")  # fmt: skip
    view = client(1)[:]
    assert view["steps"][0] > 0
    view["running"] = False
    end(running)


# ---------------------------------------------------------------- a rank fails in a call

#: What a client of such a program calls: rank ``bad`` of the call raises, and ``early`` needs nobody.
FAILING = """
    import hpcremote
    def solve(bad, early=None):
        comm = hpcremote.comm()
        if comm.rank == bad:
            raise ValueError("no data here")
        if comm.rank == early:
            return "not needed"
        return comm.allreduce(rank)
    def total():
        return hpcremote.comm().allreduce(rank)
    def keep():
        global kept
        kept = hpcremote.comm()
    def kept_total():
        hpcremote.comm()
        return kept.allreduce(rank)
"""


def fails_and_goes_on(view: hpcremote.DirectView, notebook) -> None:
    """A call in which rank 1 fails is over for all, and those behind it and after it are right."""
    view.grace = 0.3
    view.apply_sync(notebook.keep)
    for _ in range(2):
        with pytest.raises(hpcremote.CollectiveError, match="no data here") as caught:
            view.apply_async(notebook.solve, 1, 2).get(PATIENCE)
        assert list(caught.value.failed) == [1]
        assert list(caught.value.released) == [0] and caught.value.released[0].startswith("allreduce at")
        assert caught.value.finished == [2]
        assert view.apply_async(notebook.kept_total).get(PATIENCE) == [3, 3, 3]
        failing = view.apply_async(notebook.solve, 1)
        behind = [view.apply_async(notebook.total) for _ in range(2)]
        assert list(failing.exception(PATIENCE).released) == [0, 2]
        assert [ar.get(PATIENCE) for ar in behind] == [[3, 3, 3]] * 2
        assert view.client[[2, 1]].apply_async(notebook.total).get(PATIENCE) == [3, 3]


@pytest.mark.openmpi
def test_ranks_of_a_program_that_polls_are_released(program, client, notebook) -> None:
    running = program(STEPS + "say(type(comm).__name__, comm is MPI.COMM_WORLD, comm.allreduce(1))\n", n=3)
    rc = client(3)
    view = rc[:]
    notebook(FAILING)
    pids = view["os.getpid()"]
    before = view["step"]
    fails_and_goes_on(view, notebook)
    assert view["os.getpid()"] == pids
    after = view["step"]
    assert len(set(after)) == 1 and after[0] > before[0]
    view["running"] = False
    lines, err = end(running)
    assert lines == ["Intracomm True 3"] * 3
    assert err == ""


@pytest.mark.openmpi
def test_ranks_of_a_program_that_waits_are_released(program, client, notebook) -> None:
    running = program("""
        for _ in range(2):
            why = hpcremote.embed()
            say(why, type(comm).__name__, comm.allreduce(1))
    """, n=3)  # fmt: skip
    rc = client(3)
    notebook(FAILING)
    for _ in range(2):
        eventually(lambda: len(rc.ids) == 3)
        uids = {info.uid for info in rc.link.engines.values()}
        fails_and_goes_on(rc[:], notebook)
        rc[:].apply_sync(hpcremote.resume)
        eventually(lambda: uids.isdisjoint(info.uid for info in rc.link.engines.values()))  # noqa: B023
    assert end(running)[0] == ["a client has resumed it Intracomm 3"] * 6


def test_a_call_that_waits_in_mpi_is_aborted_in_a_program(program, client, notebook) -> None:
    running = program(STEPS, n=3)
    view = client(3)[:]
    notebook("""
        import hpcremote
        def alone():
            comm = hpcremote.comm()
            if comm.rank != 1:
                comm.Barrier()
        def total():
            return hpcremote.comm().allreduce(rank)
    """)
    stuck = view.apply_async(notebook.alone)
    eventually(lambda: stuck.progress == 1)
    stuck.abort()
    error = stuck.exception(PATIENCE)
    assert [one.ename for one in error.errors] == ["KeyboardInterrupt"] * 2
    assert view.apply_async(notebook.total).get(PATIENCE) == [3, 3, 3]
    view["running"] = False
    end(running)


def test_a_call_that_waits_when_its_controller_dies_is_ended(program, client, controller, notebook) -> None:
    """The program would be held up for ever: there is nobody any more who could release it."""
    running = program(
        STEPS.replace("while running:", "while steer.connected:")
        + "say(steer.connected, comm.allreduce(1))\n"
    )
    view = client(2)[:]
    notebook("""
        import hpcremote
        def alone():
            comm = hpcremote.comm()
            if comm.rank != 1:
                comm.Barrier()
    """)
    stuck = view.apply_async(notebook.alone)
    eventually(lambda: stuck.progress == 1)
    controller.stop(signal.SIGKILL)
    assert end(running)[0] == ["False 2"] * 2


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.openmpi
def test_no_cluster_is_the_same_sentence_on_all_ranks(program, session_home: Path) -> None:
    running = program("""
        try:
            hpcremote.embed(block=False, profile="mpi", wait=0.2)
        except hpcremote.ClusterNotFound as error:
            say(error)
        assert comm.allreduce(1) == size
    """)
    lines, err = end(running)
    assert len(lines) == 2 and len(set(lines)) == 1
    assert re.match(r"no cluster of profile 'mpi' is running .*\(waited 0\.2 s\)$", lines[0])
    assert err == ""


def test_a_program_outlives_its_controller_and_joins_the_next(program, client, controller) -> None:
    running = program(STEPS)
    rc = client(2)
    before = rc[:]["step"]
    rc.close()
    controller.stop(signal.SIGKILL)
    controller.start()
    after = client(2)[:]
    assert min(after["step"]) > max(before)
    after["running"] = False
    lines, err = end(running)
    assert lines == []
    said = err.splitlines()
    assert len(said) == 1, err
    assert said[0].startswith("left cluster 'default': the controller went away; the program goes on")


def test_a_program_that_polls_goes_on_when_its_set_is_ended_and_stays_away(program, client) -> None:
    running = program("""
        seen, left = 0, 0
        steer = hpcremote.embed(block=False)
        while left < 300:
            left += not steer.connected
            steer.poll(timeout=0.0 if left else 0.1)
        steer.close()
        say(steer.closed, comm.allreduce(1))
    """)
    rc = client(2)
    rc.shutdown([0, 1], block=True)
    lines, err = end(running)
    assert lines == ["True 2"] * 2
    assert err.startswith("left cluster 'default': a client asked for it; the program goes on"), err


def test_an_error_of_the_program_ends_its_steering_without_mpi(program, client) -> None:
    running = program("""
        try:
            with hpcremote.embed(block=False) as steer:
                while True:
                    steer.poll(timeout=0.1)
                    if rank == globals().get("whose"):
                        raise ValueError("mine alone")
                    if "whose" in globals():
                        break
        except ValueError as error:
            say(error)
        else:
            say("closed", rank)
    """, n=1)  # fmt: skip
    rc = client(1)
    rc[:].push({"whose": 0}, block=True)
    assert end(running)[0] == ["mine alone"]
    eventually(lambda: rc.ids == [])


def test_a_process_is_one_engine(program, client) -> None:
    running = program(STEPS)
    view = client(2)[:]
    with pytest.raises(hpcremote.CompositeError, match="this process is an engine already"):
        view.apply_sync(hpcremote.embed, block=False)
    view["running"] = False
    end(running)


def test_resume_says_where_it_belongs() -> None:
    with pytest.raises(hpcremote.HPCRemoteError, match=r"hpcremote\.embed\(\)"):
        hpcremote.resume()


# ---------------------------------------------------------------- what the documentation shows


def test_the_code_of_the_how_to_runs(program, client, notebook) -> None:
    shown = [block.text for block in blocks(ROOT / "docs/howto/steering.md") if block.language == "python"]
    simulation, session, go_on, failing = (CAPTION.sub("", text) for text in shown)
    running = program(simulation, head="")
    rc = client(2)
    session = session.replace("wait_for_engines(4)", "wait_for_engines(2)")
    notebook(session)
    end(running)
    assert len(notebook.u0) == 1000
    notebook.rc.close()
    eventually(lambda: rc.ids == [])
    running = program("import hpcremote\nhpcremote.embed()\n", head="")
    rc.wait_for_engines(2, timeout=PATIENCE)
    notebook(failing, ranks=rc[:])
    assert isinstance(notebook.ar.exception(), hpcremote.CollectiveError)
    notebook(go_on, parallel=hpcremote, ranks=rc[:])
    end(running)


def test_the_example_runs(program, controller, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    running = program((ROOT / "examples/steering.py").read_text(), head="")
    picture = tmp_path / "plate.png"
    words = ["--ranks", "2", "--pause", "0.05", "--output", str(picture)]
    watcher = python(str(ROOT / "examples/steer_it.py"), *words)
    out, err = watcher.communicate(timeout=PATIENCE)
    assert watcher.returncode == 0, out + err
    assert picture.stat().st_size > 10_000
    lines, _ = end(running)
    assert len(lines) == 1 and lines[0].startswith("ended at step")
