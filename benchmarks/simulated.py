"""Nodes that are not there: for each an agent's connection, real socket and frames, and no rank behind it.

::

    controller ◀──CURVE, bundles──▶ Node (a DEALER): 128 ranks that join, answer every call, and go when told

All nodes are served by one thread, :meth:`Nodes.serve`. Every rank's outcome is made and packed by itself.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import zmq

sys.path.insert(0, str(Path(__file__).parent.parent))

from hpcremote import connection as connections
from hpcremote.connection import Connection
from hpcremote.net.keys import KeyPair
from hpcremote.net.sockets import dealer
from hpcremote.wire import messages as m
from hpcremote.wire import payload
from hpcremote.wire.frames import pack, unpack
from hpcremote.wire.lanes import bundle, unbundle
from hpcremote.wire.session import BATCHES, Ack, Resume, encode, is_control

#: Ranks on a node.
PER_NODE = 128
Outcome = tuple[str, m.Part]
NOTHING: Outcome = ("ok", payload.to_part(payload.dump_result(None))[0])


class Node:
    """An agent's connection, and its ranks."""

    def __init__(self, socket: zmq.Socket[bytes], name: str, ranks: range) -> None:
        self.socket = socket
        self.name = name
        self.ranks = ranks
        self.taken = dict.fromkeys(range(1, len(ranks) + 1), 0)  # batches, by lane

    def lane(self, rank: int) -> int:
        """Return the number of a rank's lane."""
        return rank - self.ranks.start + 1


class Nodes:
    """All nodes of one set of ranks.

    Args:
        connection: an engine's connection file, read.
        size: how many ranks.
        outcome: what becomes of a call on a rank; None: it does not answer.

    Attributes:
        joined: how many ranks have been greeted.
    """

    def __init__(
        self,
        connection: Connection,
        size: int,
        outcome: Callable[[int], Outcome | None] = lambda rank: NOTHING,
    ) -> None:
        self.joined = 0
        self._size = size
        self._outcome = outcome
        self._stopping = False
        self._orders: deque[Callable[[], None]] = deque()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._nodes: dict[zmq.Socket[bytes], Node] = {}
        keys = KeyPair(connection.public_key, connection.secret_key)
        for start in range(0, size, PER_NODE):
            address = connection.addresses[0]
            socket = dealer(self._context, address, keys, connection.server_key)
            socket.connect(address)
            ranks = range(start, min(start + PER_NODE, size))
            self._nodes[socket] = Node(socket, f"node{start // PER_NODE}", ranks)
            self._poller.register(socket, zmq.POLLIN)

    def register(self) -> None:
        """Let every rank join, and rank 0 register the set."""
        members = [self._member(node, rank) for node in self._nodes.values() for rank in node.ranks]
        for node in self._nodes.values():
            entries = []
            for rank in node.ranks:
                uid = members[rank].uid
                hello: list[m.AnyMessage] = [
                    m.Phase(uid, node.name, members[rank].pid, "MPI_Init"),
                    m.Join(uid, "simulated", rank, m.PROTOCOL, "0"),
                ]
                if not rank:
                    hello.append(m.Register("simulated", self._size, members))
                entries.append(([node.lane(rank)], [encode(Resume(uid))]))
                entries.append(([node.lane(rank)], pack([(one, ()) for one in hello])))
            node.socket.send_multipart(bundle(entries))

    @staticmethod
    def _member(node: Node, rank: int) -> m.Member:
        local = rank - node.ranks.start
        return m.Member(f"{rank:032x}", rank, node.name, 1000 + local, local, "3.11", "0", "none", str(local))

    def serve(self) -> None:
        """Answer until the controller stops the ranks, or :meth:`stop`."""
        while not self._stopping and self._nodes:
            for socket, _ in self._poller.poll(20):
                self._answer(self._nodes[socket])
            while self._orders:
                self._orders.popleft()()
        for socket in self._nodes:
            socket.close(0)
        self._nodes.clear()
        self._context.term()

    def _answer(self, node: Node) -> None:
        entries = []
        head, *frames = node.socket.recv_multipart()
        for lanes, batch, share in unbundle(head, frames):
            if is_control(batch):
                continue
            entries += self._acks(node, lanes)
            for message, _ in unpack(batch, share):
                if isinstance(message, m.Run):
                    entries += [done for lane in lanes if (done := self._done(node, lane, message.seq))]
                elif isinstance(message, m.Joined):
                    self.joined += len(lanes)
                elif isinstance(message, m.Stop):
                    self._stopping = True
        if entries:
            node.socket.send_multipart(bundle(entries))

    @staticmethod
    def _acks(node: Node, lanes: list[int]) -> list[tuple[list[int], list[bytes]]]:
        """Count a batch for each of these ranks; return what is to be said of that."""
        entries = []
        for lane in lanes:
            node.taken[lane] += 1
            if node.taken[lane] % BATCHES == 0:
                entries.append(([lane], [encode(Ack(node.taken[lane]))]))
        return entries

    def _done(self, node: Node, lane: int, seq: int) -> tuple[list[int], list[bytes]] | None:
        began = time.time()
        outcome = self._outcome(node.ranks.start + lane - 1)
        if outcome is None:
            return None
        status, part = outcome
        return [lane], pack([(m.Done(seq, status, part, began, time.time()), ())])

    # ------------------------------------------------------------ orders from another thread

    def stop(self) -> None:
        """Let everything go."""
        self._stopping = True

    def end_ranks(self, ranks: Iterable[int]) -> None:
        """Let some ranks go; their agents stay."""
        gone = set(ranks)

        def order() -> None:
            for node in self._nodes.values():
                if lanes := [node.lane(rank) for rank in node.ranks if rank in gone]:
                    node.socket.send_multipart(bundle([(lanes, [])]))

        self._orders.append(order)

    def end_node(self, index: int) -> None:
        """Let an agent go, and with it the ranks that it speaks for."""

        def order() -> None:
            socket = list(self._nodes)[index]
            self._poller.unregister(socket)
            del self._nodes[socket]
            socket.close(0)

        self._orders.append(order)


def main() -> None:
    """Be the nodes, as a process of its own; a line on standard input lets them register."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("connection", help="an engine's connection file")
    made.add_argument("ranks", type=int)
    options = made.parse_args()
    sys.stdin.readline()
    nodes = Nodes(connections.read(options.connection, "engine"), options.ranks)
    threading.Thread(target=lambda: (sys.stdin.read(), nodes.stop()), daemon=True).start()
    nodes.register()
    nodes.serve()


if __name__ == "__main__":
    main()
