"""Is everybody here? Asked before blocking operations of MPI that cannot be left.

Every member says that it is ready to the first one; when all have, that says "go" to all. Who is released
while it waits withdraws; the first never says "go" once somebody withdrew. So after "go" everybody comes,
and before it everybody can leave. ::

    member ── ready ──▶ first ── go ──▶ all                all have come
    member ── withdraw ──▶ first ── no ──▶ all             somebody will not

With "ready" a member may say a word, a small number: that there is no room, or that a rank has died. The
largest comes back with "go", so that all do the same about it.

Messages carry the number of the agreement, so that one that was given up leaves nothing that the next
one could take for its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter, sleep
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm.watch import Watch

#: How long a member that withdraws waits for an answer, in seconds.
ANSWER = 2.0
#: How often one looks before nothing is there: what has long come, MPICH shows at the second look.
LOOKS = 16
#: A tag that no message of ours has.
NOBODY = 15
#: Tags of agreements begin here; below are other messages of ours.
_FIRST_TAG = 16

_NO, _WITHDRAW, _READY, _GO = 1, 2, 16, 32  # the last two: and a word
_MESSAGE = struct.Struct("<qq")


def agree(
    watch: Watch,
    comm: Any,
    channel: MPI.Intracomm,
    members: Sequence[int],
    key: int,
    *,
    word: int = 0,
    judge: Callable[[int], int] = lambda word: word,
) -> int:
    """Return when all *members* (ranks in *channel*) have called this with the same *key*.

    Args:
        watch: the main thread's.
        comm: on whose behalf (never broken by this).
        channel: what to talk through.
        members: who has to be there, the same on all.
        key: which agreement, the same on all.
        word: what this member has to say, less than 16.
        judge: the first one's; makes the largest word that was said into what all are told.

    Returns:
        What *judge* made of the words, on all members alike.

    Raises:
        Released: this member, or another one, was released while it waited.
    """
    if len(members) == 1:
        return judge(word)
    talk = _Talk(watch, comm, channel, key)
    first, *others = members
    if channel.Get_rank() == first:
        return talk.lead(others, word, judge)
    return talk.follow(first, word)


class _Talk:
    def __init__(self, watch: Watch, comm: Any, channel: MPI.Intracomm, key: int) -> None:
        self._watch, self._comm, self._channel, self._key = watch, comm, channel, key
        top = channel.Get_attr(MPI.TAG_UB)
        self._tag = _FIRST_TAG + 2 * (key % ((min(int(top or 32767), 1 << 22) - _FIRST_TAG) // 2))

    def lead(self, others: list[int], word: int, judge: Callable[[int], int]) -> int:
        try:
            word = judge(max([word, *(self._receive(member) - _READY for member in others)]))
        except BaseException:
            self._tell(others, _NO)
            raise
        if self._withdrawn(others):
            self._tell(others, _NO)
            raise self._watch.verdict("another rank of it did not come")
        self._tell(others, _GO + word)
        return word

    def follow(self, first: int, word: int) -> int:
        self._tell([first], _READY + word)
        try:
            answer = self._receive(first)
        except BaseException:
            answer = self._withdraw(first)
            if not answer:
                raise
        if answer == _NO:
            raise self._watch.verdict("another rank of it did not come")
        return answer - _GO

    def _withdraw(self, first: int) -> int:
        """Withdraw; return the answer that was on its way, or 0."""
        self._tell([first], _WITHDRAW, 1)
        deadline = perf_counter() + ANSWER
        while perf_counter() < deadline:
            if self._channel.Iprobe(first, self._tag):
                message = bytearray(_MESSAGE.size)
                self._channel.Recv(message, first, self._tag)
                key, code = _MESSAGE.unpack(message)
                if key == self._key:
                    return int(code) if code >= _GO else 0
            sleep(0.0005)
        return 0

    def _withdrawn(self, others: list[int]) -> bool:
        try:
            return self._withdrew(MPI.ANY_SOURCE)
        except MPI.Exception:  # a rank has died, perhaps none of these (ULFM): ask one by one
            found = [self._withdrew(member) for member in others]  # of all, so that nothing is left
            return any(found)

    def _withdrew(self, source: int) -> bool:
        found, looks = False, LOOKS
        while looks:
            if self._channel.Iprobe(source, self._tag + 1):
                message = bytearray(_MESSAGE.size)
                self._channel.Recv(message, source, self._tag + 1)
                found |= _MESSAGE.unpack(message)[0] == self._key
                looks = LOOKS
            looks -= 1
        return found

    def _receive(self, source: int) -> int:
        """Return what *source* says about this agreement; what it said about older ones is dropped."""
        while True:
            message = bytearray(_MESSAGE.size)
            request = self._channel.Irecv(message, source, self._tag)
            self._watch.wait(self._comm, request, receives=True)
            key, code = _MESSAGE.unpack(message)
            if key == self._key:
                return int(code)

    def _tell(self, whom: Sequence[int], code: int, offset: int = 0) -> None:
        message = _MESSAGE.pack(self._key, code)
        for member in whom:
            with suppress(MPI.Exception):  # one has died (ULFM): the others have to hear it all the same
                self._watch.keep(self._channel.Isend(message, member, self._tag + offset))
