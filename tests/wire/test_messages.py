"""The vocabulary, and its frozen bytes.

``tests/golden/frames/protocol-N.txt`` has one line for each message of protocol N: its tag and the batch that
it alone makes, in hexadecimal. What is there never changes. Who changes a message raises PROTOCOL and adds a
file: ``python -m tests.wire.test_messages`` prints it.
"""

from __future__ import annotations

import typing
from pathlib import Path

import msgspec
import pytest

from hpcremote.wire import messages as m
from hpcremote.wire.frames import FrameError, pack, unpack

GOLDEN = Path(__file__).parents[1] / "golden" / "frames"
EVERY = typing.get_args(m.AnyMessage)

INFO = m.EngineInfo(3, "e" * 32, "s" * 32, 3, 4, "node7", 4711, True, "3.11.7", "0.1.0", "MPICH 5.0.2", "0-3")
MEMBER = m.Member("e" * 32, 3, "node7", 4711, 1, "3.11.7", "0.1.0", "MPICH 5.0.2", "0-3")
SMALL = m.Part(b"\x80\x05K\x01.", [5])
BIG = m.Part(b"\x80\x05.", [3, 70_000, 1 << 40], 2)
BLOB = m.Part(b"\x80\x05.", [3, 1 << 20], 0, "b" * 32)
GONE = m.Gone(3, "e" * 32, "killed by SIGKILL", "last words\n")

SAMPLES: list[m.AnyMessage] = [
    m.Hello("c" * 32, 1, "0.1.0", "login1", 99, "3.12.1"),
    m.Define([0, 3], b"d" * 16, b"\x00\xff code"),
    m.Call(7, [0, 3], "apply", b"d" * 16, [SMALL, BLOB], "norms", -1.0, 300.0),
    m.Abort([7, 8], [3]),
    m.Shutdown(9, [0, 3], False),
    m.Query(10, "queue_status"),
    m.Where(11, [0, 3], True),
    m.Kill(11, [3], 18),
    m.Restart(12, "s" * 32, 30.0),
    m.Welcome("c1", "0.1.0", "node7", 4700, [INFO], "/dev/shm/x"),
    m.Refused("the key of this connection is not for a client's work"),
    m.Engines([INFO], [GONE]),
    m.Result(7, 3, "ok", BLOB, 1.5, 2.5, "out\n", "Fehler: \u00fc\n"),
    m.Output(7, 3, 2, "half a li"),
    m.Missing(3, b"d" * 16),
    m.Hanging(7, 12.5, '{"3": {"text": ""}}'),
    m.TimeLeft("s" * 32, 600.0, "SIGTERM"),
    m.Answer(10, '{"engines": {}}', "no"),
    m.Join("e" * 32, "s" * 32, 3, 1, "0.1.0"),
    m.Phase("e" * 32, "node7", 4711, "MPI_Init"),
    m.Register("s" * 32, 4, [MEMBER], "f" * 32, "a" * 32, 3600.0, "slurm", "job-2"),
    m.Done(1 << 40, "error", SMALL, 1.5, 2.5, "", "trace"),
    m.Print(12, 1, "hello\n"),
    m.Lacking(12, b"d" * 16),
    m.Hook(300.0),
    m.Leaving("stopped: a client asked for it", True),
    m.Joined(3, "c1", "/dev/shm/x"),
    m.Run(12, "apply", b"d" * 16, SMALL, True, [0, 3]),
    m.Given(b"d" * 16, b"code"),
    m.Drop([12, 13]),
    m.Release(12, "the call failed on engine 1"),
    m.Settled(12),
    m.Renew(13, 12, [0, 3, 1], True, True),
    m.Stock(14, [0, 3, 1], False),
    m.Stop("a client asked for it"),
    m.Tend(),
    m.Bereft(),
    m.Attend("node7", 4690, 1, ["e" * 32]),
    m.Seen(3, [m.Sight("e" * 32, "Stack (most recent call first):\n", "sleeping", "#0 read ()", "[]", 9)]),
    m.Exited("e" * 32, "killed by SIGKILL", "last words\n"),
    m.Noticed("e" * 32, "T"),
    m.Remaining("e" * 32, 3540.0),
    m.Warned(["e" * 32], 15),
    m.HowLong("e" * 32),
    m.Look(3, ["e" * 32], True, True),
    m.Signal(["e" * 32], 18),
]


def tag(message: object) -> str:
    return str(type(message).__struct_config__.tag)  # type: ignore[attr-defined]


def golden_lines() -> str:
    return "".join(f"{tag(sample)} {pack([(sample, ())])[0].hex()}\n" for sample in SAMPLES)


def frozen(protocol: int) -> dict[str, bytes]:
    lines = (GOLDEN / f"protocol-{protocol}.txt").read_text().splitlines()
    return {name: bytes.fromhex(text) for name, text in (line.split(" ") for line in lines)}


def test_every_message_has_a_sample() -> None:
    assert {type(sample) for sample in SAMPLES} == set(EVERY)


@pytest.mark.parametrize("sample", SAMPLES, ids=tag)
def test_bytes_of_this_protocol_never_change(sample: m.AnyMessage) -> None:
    golden = frozen(m.PROTOCOL)[tag(sample)]
    assert pack([(sample, ())])[0] == golden
    assert unpack(golden) == [(sample, ())]


def test_nothing_frozen_is_forgotten() -> None:
    assert set(frozen(m.PROTOCOL)) == {tag(sample) for sample in SAMPLES}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("protocol-*.txt")), ids=lambda path: path.stem)
def test_other_protocols_are_refused_by_their_first_byte(path: Path) -> None:
    protocol = int(path.stem.rpartition("-")[2])
    for head in frozen(protocol).values():
        assert head[0] == protocol
        other = bytes([protocol % 255 + 1]) + head[1:]
        if protocol == m.PROTOCOL:
            with pytest.raises(FrameError, match=f"not a message of protocol {m.PROTOCOL}"):
                unpack(other)
        else:
            with pytest.raises(FrameError, match=f"not a message of protocol {m.PROTOCOL}"):
                unpack(head)


def test_who_may_say_what() -> None:
    client, engine = set(m.CLIENT_MESSAGES), set(m.ENGINE_MESSAGES)
    agent = set(m.AGENT_MESSAGES)
    assert not client & engine
    assert not agent & (client | engine)
    assert agent == set(typing.get_args(m.FromAgent))
    assert client == set(typing.get_args(m.FromClient))
    assert engine == set(typing.get_args(m.FromEngine))
    answers = set(typing.get_args(m.ToClient)) | set(typing.get_args(m.ToEngine))
    answers |= set(typing.get_args(m.ToAgent))
    assert client | engine | agent | answers == set(EVERY)
    assert not (client | engine | agent) & answers


def test_a_header_says_how_many_frames_follow() -> None:
    assert m.Call(1, [0, 1], "apply", b"", [BIG, SMALL, BIG]).nframes == 4
    assert m.Run(1, "apply", b"", BIG, False, [0]).nframes == 2
    assert m.Result(1, 0, "ok", BIG).nframes == m.Done(1, "ok", BIG).nframes == 2
    assert {sample.nframes for sample in SAMPLES} == {0}


def test_a_newer_sender_may_add_fields_at_the_end() -> None:
    """Fields that came later within one protocol are ignored, and missing ones have their defaults."""
    longer = msgspec.msgpack.encode([["stop", "enough", "and why"]])
    assert unpack(b"\x01" + longer) == [(m.Stop("enough"), ())]
    shorter = msgspec.msgpack.encode([["answer", 5, "true"]])
    assert unpack(b"\x01" + shorter) == [(m.Answer(5, "true", ""), ())]


@pytest.mark.parametrize(
    "wrong",
    [
        ["stop"],
        ["stop", 5],
        ["call", 1, "all", "apply", b"", []],
        ["call", 1, [0], "apply", b"", [[b"", [], -1, ""]]],
        ["run", 1, "apply", b"", [b"", [-1]], True, [0]],
        ["done", True, "ok", [b"", []]],
        ["nonsense", 1],
        [1, 2],
        [],
        {"type": "stop"},
    ],
    ids=repr,
)
def test_a_header_of_another_shape_is_refused(wrong: object) -> None:
    with pytest.raises(FrameError):
        unpack(b"\x01" + msgspec.msgpack.encode([wrong]))


if __name__ == "__main__":
    print(golden_lines(), end="")
