"""What may keep hpcremote from working here, each with what to do about it.

::

    profile ──▶ one module a group: probe() looks, judge() says what it means ──▶ findings ──▶ cli/doctor.py

Judging is pure. A probe leaves nothing behind but the user's own folder, asks nobody outside this machine
(but a host that is named), and takes a few seconds at most.
"""
