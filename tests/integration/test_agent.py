"""The node agent for real: stacks of ranks that hang, signals to one of them, its own life and death."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from hpcremote import files
from hpcremote.client.stacks import Stacks
from tests.integration.support import Running, command, eventually, has_ended

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def mpi3(session_home: Path) -> Iterator[Running]:
    with Running(n=3, profile="mpi") as running:
        yield running


def folder(running: Running) -> Path:
    return files.runtime_dir() / running.rc.link.connection.cluster_uid[:16]


def agents(running: Running) -> list[psutil.Process]:
    return [one for one in running.processes() if "agent" in one.cmdline() and not has_ended(one)]


def only_agent(running: Running) -> psutil.Process:
    assert len(running.rc[:].stacks()) == len(running.rc)  # one is there when they have been seen
    (agent,) = agents(running)
    return agent


def column(running: Running, name: str) -> list[str]:
    """Return what rc.info() has of each engine in one of its columns."""
    table = running.rc.info()
    return [row[table.columns.index(name)] for row in table.rows]


def wait_in_c(gate):
    """Wait in C code that holds the GIL, until somebody opens *gate* for writing."""
    import ctypes
    import os

    libc = ctypes.PyDLL(None)
    libc.close(libc.open(os.fsencode(gate), os.O_RDONLY))
    return "through"


def wait_in_python(gate):
    with open(gate) as file:
        return file.read()


def open_gate(gate: Path) -> None:
    with open(gate, "w"):
        pass


def until(look: Callable[[], Stacks], *functions: str) -> Stacks:
    """Look until these functions are on the stacks; that a call has begun is announced by nothing else."""
    seen: list[Stacks] = []

    def there() -> bool:
        seen.append(look())
        found = {frame.function for stack in seen[-1].by_engine.values() for frame in stack.frames}
        return found >= set(functions)

    eventually(there, why=f"{functions} were not seen")
    return seen[-1]


@pytest.fixture
def gates(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "one", tmp_path / "two"]
    for gate in made:
        os.mkfifo(gate)
    return made


@pytest.mark.openmpi
def test_a_rank_that_holds_the_gil_shows_where_it_is(mpi3, gates):
    rc = mpi3.rc
    stuck = rc[1].apply_async(wait_in_c, str(gates[0]))
    seen = until(rc[:].stacks, "wait_in_c")
    line = seen[1].frames[-1].line
    assert seen[1].frames[-1].file == __file__
    head, *tree = str(seen).splitlines()
    assert head == f"rank 1 in wait_in_c() at test_agent.py:{line}; ranks 0,2 waiting for work"
    assert tree[-1].split() == ["1", "wait_in_c()", f"{__file__}:{line}"]
    assert list(rc[1].stacks().by_engine) == [1]
    open_gate(gates[0])
    assert stuck.get(20) == "through"


def test_c_stacks_are_those_of_the_tool_on_the_clusters_path(start, tmp_path, monkeypatch):
    tool = tmp_path / "py-spy"  # the first of those that are looked for: dump --native --pid PID
    tool.write_text('#!/bin/sh\necho "#0 read () of $4"\n')
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    running = start(n=2, profile="mpi")
    expected = {engine: f"#0 read () of {process.pid}" for engine, process in running.engines.items()}
    seen = running.rc[:].stacks(native=True)
    assert seen.native == expected
    assert str(seen).startswith("ranks 0-1 waiting for work")
    assert running.rc[1].stacks(native=True).native == {1: expected[1]}
    assert running.rc[:].stacks().native == {}
    said = command("stacks", "-p", "mpi", "-c", running.cluster.cluster_id, "--native")
    assert (said.returncode, said.stdout.rstrip()) == (0, str(seen))
    assert f"rank 1 in C:\n  {expected[1]}" in said.stdout
    said = command("stacks", "-p", "mpi", "-c", running.cluster.cluster_id, "--native", "--json")
    assert [row["native"] for row in json.loads(said.stdout).values()] == list(expected.values())


def read_in_c(gate):
    """Read a byte in C code that does not try again if a signal comes; return how many it got, and errno."""
    import ctypes
    import os

    libc = ctypes.CDLL(None, use_errno=True)
    end = os.open(gate, os.O_RDWR)
    got = libc.read(end, ctypes.create_string_buffer(1), 1), ctypes.get_errno()
    os.close(end)
    return got


def nap(seconds):
    import time

    began = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - began >= seconds


def test_looking_cuts_short_neither_reads_of_c_code_nor_pythons_sleep(mpi3, gates):
    rc = mpi3.rc
    reading, napping = rc[1].apply_async(read_in_c, str(gates[0])), rc[2].apply_async(nap, 1.0)
    until(rc[:].stacks, "read_in_c", "nap")
    for _ in range(3):
        assert rc[:].stacks()[1].frames[-1].function == "read_in_c"
    gates[0].write_bytes(b"x")
    assert reading.get(20) == (1, 0)
    assert napping.get(20) is True


def test_an_agent_is_back_when_one_of_its_ranks_lets_go_of_the_gil(mpi3, gates):
    rc = mpi3.rc
    agent = only_agent(mpi3)
    stuck = rc[:].apply_async(wait_in_c, str(gates[0]))
    eventually(
        lambda: all(
            stack.frames and stack.frames[-1].function == "wait_in_c"
            for stack in rc[:].stacks().by_engine.values()
        )
    )
    agent.kill()
    eventually(
        lambda: (
            str(rc[:].stacks()) == f"ranks 0-2 not seen: no node agent watches it on {socket.gethostname()}"
        )
    )
    open_gate(gates[0])
    assert stuck.get(20) == ["through"] * 3
    eventually(lambda: str(rc[:].stacks()).startswith("ranks 0-2 waiting for work"))


def test_ranks_in_different_functions_are_merged(mpi3, gates):
    rc = mpi3.rc
    first = rc[1].apply_async(wait_in_c, str(gates[0]))
    others = [rc[i].apply_async(wait_in_python, str(gates[1])) for i in (0, 2)]
    seen = until(rc[:].stacks, "wait_in_c", "wait_in_python")
    while seen[0] != seen[2]:
        seen = rc[:].stacks()
    python, c = seen[0].frames[-1], seen[1].frames[-1]
    assert str(seen).splitlines()[0] == (
        f"ranks 0,2 in {python.call} at {python.place}; rank 1 in {c.call} at {c.place}"
    )
    assert repr(seen) == f"<Stacks: {str(seen).splitlines()[0]}>"
    said = command("stacks", "-p", "mpi", "-c", mpi3.cluster.cluster_id)
    assert (said.returncode, said.stdout.rstrip()) == (0, str(seen))
    open_gate(gates[0])
    assert first.get(20) == "through"
    for result in others:
        eventually(lambda result=result: _let_through(gates[1], result))


def _let_through(gate: Path, result) -> bool:
    with contextlib.suppress(OSError):  # nobody is there any more, or not yet
        os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))
    return bool(result.ready())


def test_a_signal_reaches_one_rank_and_no_other(mpi3):
    rc, view = mpi3.rc, mpi3.rc[:]
    code = """
import signal
got = []
signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
"""
    view.execute(code, block=True)
    rc[2].send_signal(signal.SIGUSR1)
    eventually(lambda: rc[2]["got"] == [signal.SIGUSR1])
    assert view["got"] == [[], [], [signal.SIGUSR1]]
    view.execute("signal.signal(signal.SIGUSR1, signal.SIG_DFL)", block=True)


def test_a_stopped_rank_is_said_to_be(mpi3):
    rc = mpi3.rc
    only_agent(mpi3)
    rc[1].send_signal(signal.SIGSTOP)
    eventually(lambda: mpi3.engines[1].status() == psutil.STATUS_STOPPED)
    try:
        assert str(rc[1].stacks()) == f"rank 1 {rc[1].stacks().state[1]}"
        assert rc[1].stacks().state[1].startswith("stopped by a signal (T)")
        waits = rc[1].apply_async(abs, -3)
        assert column(mpi3, "state") == ["idle", "stopped while busy", "idle"]
        eventually(lambda: rc.queue_status(1).get("state") == "stopped")
        assert all(size.endswith(" MiB") for size in column(mpi3, "memory"))
    finally:
        rc[1].send_signal(signal.SIGCONT)
    assert waits.get(20) == 3
    assert column(mpi3, "state") == ["idle"] * 3


def test_memory_is_seen_also_of_a_rank_that_is_stuck(mpi3, gates):
    """To a hundredth of what the kernel tells us, who ask a moment later."""
    rc = mpi3.rc
    only_agent(mpi3)
    before = [int(size.split()[0]) for size in column(mpi3, "memory")]
    rc[1].execute("block = b'x' * (200 << 20)", block=True)
    stuck = rc[1].apply_async(wait_in_c, str(gates[0]))
    until(rc[:].stacks, "wait_in_c")
    after = [int(size.split()[0]) for size in column(mpi3, "memory")]
    assert [round((new - old) / 100) for old, new in zip(before, after, strict=True)] == [0, 2, 0]
    for rank, size in enumerate(after):
        assert abs(mpi3.engines[rank].memory_info().rss / 2**20 - size) < 0.01 * size + 1
    open_gate(gates[0])
    assert stuck.get(20) == "through"
    rc[1].execute("del block", block=True)


def test_the_agent_costs_little(mpi3):
    agent = only_agent(mpi3)
    assert agent.memory_full_info().uss < 20 << 20
    assert agent.num_threads() == 1
    loaded = {Path(each.path).name for each in agent.memory_maps()}
    assert not [name for name in loaded if "libmpi" in name or "numpy" in name]


def test_an_agent_that_is_killed_has_a_successor(mpi3):
    before = only_agent(mpi3)
    before.kill()
    eventually(lambda: has_ended(before))
    assert str(mpi3.rc[:].stacks()) == "ranks 0-2 waiting for work"
    (after,) = agents(mpi3)
    assert after != before


def test_only_one_agent_watches_a_node(mpi3):
    only_agent(mpi3)
    engine_file = mpi3.client_file().with_name("engine.json")
    said = command("agent", "--file", str(engine_file))
    assert said.returncode == 5
    assert "an agent watches the ranks of this node already" in said.stderr


def test_the_agent_ends_after_its_ranks(start):
    running = start(n=2, profile="mpi")
    agent, place = only_agent(running), folder(running)
    assert (place / "bell").is_socket()
    ranks = list(running.engines.values())
    running.rc.shutdown()
    eventually(lambda: all(map(has_ended, ranks)), why="the ranks did not end")
    took = eventually(lambda: has_ended(agent), 5.0, "the agent did not end")
    assert took < 1.0
    assert not place.exists()
