from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from hpcremote.client.client import Client
from hpcremote.client.reply import ExecuteReply


def test_the_last_line_is_shown_unless_silent(rc: Client) -> None:
    e1 = rc[1]
    assert e1.execute("40 + 2").get() is None
    ar = e1.execute("40 + 2", silent=False)
    reply = ar.get()
    assert isinstance(reply, ExecuteReply)
    assert (reply.execution_count, reply.data, reply.engine_id) == (2, {"text/plain": "42"}, 1)
    assert repr(reply) == "<ExecuteReply[2]: 42>"
    assert reply._repr_mimebundle_()["text/plain"] == "Out[1:2]: 42"
    assert ar.execute_result == {"execution_count": 2, "data": {"text/plain": "42"}}
    assert repr(e1.execute("x = 1", silent=False).get()) == "<ExecuteReply[3]: >"


def test_replies_are_displayed_in_ipython_only(rc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    display = ModuleType("IPython.display")
    display.display = shown.append  # type: ignore[attr-defined]
    ar = rc[:2].execute("1", silent=False)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    ar.display_outputs()
    assert shown == []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))
    ar.display_outputs()
    assert shown == ar.get()
    rc[0].execute("pass", silent=False).display_outputs()
    assert len(shown) == 2
