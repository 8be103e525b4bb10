"""Engines that share their node agent's connection: one a node, whoever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import hpcremote
from hpcremote import connection, errors, files
from tests.integration.support import PATIENCE, Running, environment, eventually, has_ended, open_gate

pytestmark = pytest.mark.mpi

RANKS = 3
SOON = 20.0


@pytest.fixture(scope="module", params=[False, True], ids=["TCP", "Unix"])
def relayed(request: pytest.FixtureRequest, session_home: Path) -> Iterator[Running]:
    """A cluster whose ranks are relayed, with TCP and CURVE or with a Unix stream behind the agent."""
    folder = files.user_dir() / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "relayed.yaml").write_text("extends: mpi\nrelay: always\n")
    with Running(n=RANKS, profile="relayed", ipc=request.param) as running:
        yield running


@pytest.fixture
def brief(start):
    """A cluster for one test that it does not survive."""

    def make(**options):
        folder = files.user_dir() / "profiles"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "relayed.yaml").write_text("extends: mpi\nrelay: always\n")
        return start(n=RANKS, profile="relayed", ipc=False, **options)

    return make


def agents(running: Running) -> list[psutil.Process]:
    return [one for one in running.processes() if "agent" in one.cmdline() and not has_ended(one)]


def only_agent(running: Running) -> psutil.Process:
    eventually(lambda: len(agents(running)) == 1, why="there is no agent, or there are several")
    return agents(running)[0]


def kill_agent(running: Running) -> None:
    agent = only_agent(running)
    agent.kill()
    eventually(lambda: has_ended(agent))


def ways(running: Running) -> dict[str, int]:
    """Count TCP connections to the controller, by who has them."""
    port = int(running.rc.link.connection.addresses[0].rpartition(":")[2])
    counts = {"engines": 0, "agent": 0}
    for name, processes in (("engines", running.engines.values()), ("agent", agents(running))):
        for process in processes:
            counts[name] += sum(
                1 for one in process.net_connections("tcp") if one.raddr and one.raddr.port == port
            )
    return counts


def pid() -> int:
    return os.getpid()


def wait(gate):
    with open(gate):
        return "through"


def total(x):
    from mpi4py import MPI

    print("adding", x)
    return MPI.COMM_WORLD.allreduce(x)


done = 0


def step(number):
    from mpi4py import MPI

    global done
    done += 1
    return MPI.COMM_WORLD.allreduce(number), done, bytes(200_000)


def last_words(gate):
    print("these are my last words", flush=True)
    with open(gate):
        pass


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def pids(running: Running) -> list[int]:
    return [running.engines[rank].pid for rank in range(RANKS)]


def test_the_agent_has_the_only_connection(relayed):
    assert relayed.rc[:].apply_sync(pid) == pids(relayed)
    assert ways(relayed) == {"engines": 0, "agent": 0 if relayed.cluster.profile.ipc else 1}
    info = relayed.rc.link.engines
    assert {engine.set_id for engine in info.values()} == {info[0].set_id}
    assert [info[rank].rank for rank in range(RANKS)] == list(range(RANKS))


def test_collectives_output_stacks_and_big_arrays_pass(relayed):
    view = relayed.rc[:]
    result = view.apply_async(total, 2)
    assert result.get(SOON) == [2 * RANKS] * RANKS
    assert [text.strip() for text in result.stdout] == ["adding 2"] * RANKS
    eventually(lambda: str(view.stacks()) == f"ranks 0-{RANKS - 1} waiting for work")
    data = os.urandom(9_000_000)
    view.push({"data": data}, block=True)
    assert view["data"] == [data] * RANKS


def test_memory_of_ranks_is_known(relayed):
    assert len(relayed.rc[:].stacks()) == RANKS  # all are watched when they have been seen
    table = relayed.rc.info()
    assert all(row[table.columns.index("memory")].endswith(" MiB") for row in table.rows)


def test_abort_drops_what_has_not_started(relayed, gate):
    view = relayed.rc[:]
    running = relayed.rc[0].apply_async(wait, str(gate))
    waiting = [relayed.rc[0].apply_async(pid) for _ in range(3)]
    relayed.rc.abort(waiting)
    for result in waiting:
        with pytest.raises(errors.TaskAborted):
            result.get(SOON)
    open_gate(gate)
    assert running.get(SOON) == "through"
    assert view.apply_sync(pid) == pids(relayed)


def test_calls_survive_the_death_of_the_agent(relayed, tmp_path):
    view = relayed.rc[:]
    gates = [tmp_path / str(rank) for rank in range(RANKS)]
    for each in gates:
        os.mkfifo(each)
    started = [relayed.rc[rank].apply_async(wait, str(gates[rank])) for rank in range(RANKS)]
    queued = view.apply_async(pid)
    kill_agent(relayed)
    later = view.apply_async(pid)
    for each in gates:
        open_gate(each)
    assert [result.get(SOON) for result in started] == ["through"] * RANKS
    assert queued.get(SOON) == later.get(SOON) == pids(relayed)
    eventually(lambda: str(view.stacks()) == f"ranks 0-{RANKS - 1} waiting for work")
    assert ways(relayed) == {"engines": 0, "agent": 0 if relayed.cluster.profile.ipc else 1}
    assert relayed.rc.ids == list(range(RANKS))


def test_no_call_is_lost_or_done_twice_while_agents_die(relayed):
    """Two clients keep the ranks busy with collectives and counters while agents are killed."""
    other = relayed.new_client()
    wrong: list[object] = []
    counts: list[int] = []
    enough = threading.Event()

    def work(rc: hpcremote.Client) -> None:
        number = 0
        while not enough.is_set():
            results = [rc[:].apply_async(step, number + more) for more in range(3)]
            for more, result in enumerate(results):
                values = result.get(SOON)
                counts.append(values[0][1])
                if [value[:2] for value in values] != [((number + more) * RANKS, counts[-1])] * RANKS:
                    wrong.append([value[:2] for value in values])
            number += 3

    threads = [threading.Thread(target=work, args=(rc,)) for rc in (relayed.rc, other)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            before = len(counts)
            eventually(lambda before=before: len(counts) > before + 20, why="calls did not go on")
            kill_agent(relayed)
        before = len(counts)
        eventually(lambda: len(counts) > before + 20, why="calls did not go on")
    finally:
        enough.set()
        for thread in threads:
            thread.join(PATIENCE)
        other.close()
    assert wrong == []
    assert sorted(counts) == list(range(1, len(counts) + 1))


def test_a_rank_that_is_killed_fails_its_calls_with_its_last_output(brief, gate):
    running = brief()
    rc = running.rc
    result = rc[1].apply_async(last_words, str(gate))
    eventually(lambda: "last words" in result.stdout)
    running.engines[1].kill()
    with pytest.raises(errors.EngineError, match="killed by SIGKILL") as caught:
        result.get(SOON)
    assert "these are my last words" in str(caught.value)
    assert not has_ended(running.controller)


def test_the_agent_ends_after_its_ranks_and_leaves_nothing(brief):
    running = brief()
    kill_agent(running)
    assert running.rc[:].apply_sync(pid) == pids(running)
    agent = only_agent(running)
    place = files.runtime_dir() / running.rc.link.connection.cluster_uid[:16]
    assert (place / "link").is_socket()
    running.rc.shutdown()
    eventually(lambda: all(map(has_ended, running.engines.values())), why="the ranks did not end")
    eventually(lambda: has_ended(agent), why="the agent did not end")
    assert not place.exists()


def test_an_engine_without_an_agent_connects_by_itself(tmp_path, session_home):
    """The agent cannot make its socket: it ends, again and again."""
    log = (tmp_path / "log").open("a+")
    words = [sys.executable, "-m", "hpcremote"]
    profile = tmp_path / "alone.yaml"
    profile.write_text("extends: local\nrelay: always\nipc: false\n")
    controller = subprocess.Popen(
        [*words, "controller", "--profile", str(profile)], env=environment(), stderr=log, stdout=log
    )
    home = files.user_dir() / "clusters" / "alone"
    engine = None
    try:
        eventually(lambda: list(home.glob("*/engine.json")), why="there is no controller")
        (file,) = home.glob("*/engine.json")
        place = files.private_dir(files.runtime_dir() / connection.read(file, "engine").cluster_uid[:16])
        (place / "link").mkdir()
        engine = subprocess.Popen(
            [*words, "engine", "--file", str(file), "--no-mpi"], env=environment(), stderr=log, stdout=log
        )
        with hpcremote.Client(file.with_name("client.json")) as rc:
            rc.wait_for_engines(1, timeout=PATIENCE)
            assert rc[0].apply_sync(pid) == engine.pid
            log.seek(0)
            said = log.read()
            assert "this engine connects by itself, without its node's agent: " in said
            assert f"{place}/link: Is a directory" in said
            rc.shutdown(hub=True)
        assert controller.wait(PATIENCE) == engine.wait(PATIENCE) == 0
    finally:
        for process in (engine, controller):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
        log.close()


def test_a_set_is_restarted_behind_the_same_agent(brief):
    running = brief()
    rc = running.rc
    agent = only_agent(running)
    before = rc[:].apply_sync(pid)
    rc.set(0).restart()
    after = rc[:].apply_sync(pid)
    assert rc.ids == list(range(RANKS)) and not set(before) & set(after)
    assert rc[:].apply_sync(total, 1) == [RANKS] * RANKS
    assert agents(running) == [only_agent(running)]
    assert only_agent(running) == agent or has_ended(agent)
