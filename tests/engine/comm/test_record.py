"""Where the user's code is, seen from inside the package and from outside."""

from __future__ import annotations

import sys
import threading
import types

from hpcremote.engine.comm import record


def test_our_own_frames_are_passed_over() -> None:
    module = types.ModuleType("ours")
    ours = compile("def call(function):\n    return function()\n", f"{record._OURS}made_up.py", "exec")
    exec(ours, module.__dict__)
    inner = compile("def look():\n    return place(sys._getframe())\n", f"{record._OURS}other.py", "exec")
    names = {"place": record.place, "sys": sys}
    exec(inner, names)
    filename, lineno = module.call(names["look"])
    assert filename == __file__
    assert lineno == test_our_own_frames_are_passed_over.__code__.co_firstlineno + 7


def test_another_thread_is_found() -> None:
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        leave.wait(30)

    thread = threading.Thread(target=wait)
    thread.start()
    inside.wait(30)
    filename, lineno = record.place_of(thread.ident or 0)
    leave.set()
    thread.join()
    assert filename
    assert lineno > 0
    assert record.place_of(-1) == ("", 0)


def test_words_for_a_place() -> None:
    assert record.at("/home/me/solve.py", 12) == " at solve.py:12"
    assert record.at("", 0) == ""
