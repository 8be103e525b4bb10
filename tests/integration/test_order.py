"""Guarantee 1: any two calls meet every engine that both have in the same order, whoever makes them."""

from __future__ import annotations

import itertools
import random
import threading

import hpcremote
from tests.integration.support import Running

VIEWS = [[0, 1, 2, 3], [3, 2, 1, 0], [0, 1], [1, 2], [2, 3], [0, 3], [1, 2, 3], [2]]
CALLS = 150


def check_one_order(orders: list[list[str]], expected: dict[int, list[str]]) -> None:
    for engine, order in enumerate(orders):
        assert sorted(order) == sorted(expected[engine])
        for thread_name in ("a0", "a1", "b0", "b1"):  # each thread's calls in the order in which it made them
            own = [int(call.split("-")[1]) for call in order if call.startswith(thread_name)]
            assert own == sorted(own)
    for one, other in itertools.combinations(range(4), 2):
        both = set(orders[one]) & set(orders[other])
        assert len(both) > CALLS
        assert [call for call in orders[one] if call in both] == [
            call for call in orders[other] if call in both
        ]


def test_clients_and_threads_with_overlapping_views_see_one_order(mpi4: Running) -> None:
    mpi4.rc.clear(block=True)
    mpi4.rc[[0, 1, 2, 3]].execute("seen = []", block=True)
    clients = [mpi4.rc, mpi4.new_client()]
    start = threading.Barrier(4)
    failed: list[BaseException] = []
    expected: dict[int, list[str]] = {engine: [] for engine in range(4)}
    lock = threading.Lock()

    def work(client: hpcremote.Client, name: str) -> None:
        dice = random.Random(name)
        try:
            start.wait(30)
            results = []
            for number in range(CALLS):
                targets = dice.choice(VIEWS)
                call = f"{name}-{number}"
                with lock:
                    for engine in targets:
                        expected[engine].append(call)
                results.append(client[targets].execute(f"seen.append({call!r})"))
                if dice.random() < 0.05:
                    results[-1].get(60)
            for result in results:
                result.get(60)
        except BaseException as error:
            failed.append(error)

    threads = [
        threading.Thread(target=work, args=(client, f"{who}{index}"))
        for who, client in zip("ab", clients, strict=True)
        for index in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    try:
        assert failed == []
        orders = mpi4.rc[[0, 1, 2, 3]].pull("seen", block=True)
    finally:
        clients[1].close()
    check_one_order(orders, expected)


def test_collectives_of_two_clients_at_once_are_never_mixed_up(mpi4: Running) -> None:
    def total(value: int) -> int:
        from mpi4py import MPI

        return int(MPI.COMM_WORLD.allreduce(value))

    other = mpi4.new_client()
    wrong: list[object] = []

    def work(client: hpcremote.Client, base: int) -> None:
        view = client[[0, 1, 2, 3]]
        results = [(base + n, view.apply_async(total, base + n)) for n in range(100)]
        wrong.extend((value, sums) for value, ar in results if (sums := ar.get(60)) != [4 * value] * 4)

    both = [(mpi4.rc, 1_000), (other, 50_000)]
    threads = [threading.Thread(target=work, args=one) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    other.close()
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
