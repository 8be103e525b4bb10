"""The engine's main thread, between calls."""

from __future__ import annotations

import subprocess
import sys

WAITS = """
import signal, time
from types import SimpleNamespace
from hpcremote.engine import executor
from hpcremote.engine.machine import Engine

executor.PATIENCE = 0.05
machine = Engine(lambda name: False, lambda name, data: None)
subject = executor.Executor(machine, SimpleNamespace())
subject._link = SimpleNamespace(seconds_alone=lambda: 0.0, connection=SimpleNamespace(controller_timeout=9.0))
signal.signal(signal.SIGINT, subject._on_sigint)

class Renewal:
    def renew_now(self, upcoming):
        subject.tick()
        print("waits", flush=True)
        machine.stopping = "stopped"
        while True:
            subject.tick()
            time.sleep(0.001)

subject.renew(Renewal())
"""


def test_an_engine_that_waits_in_a_renewal_ends_when_it_is_told_to() -> None:
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "waits\n"), done.stderr
