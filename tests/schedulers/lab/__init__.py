"""Several machines and their batch systems on one machine: see ``tests/schedulers/README.md``.

Lowest first: :mod:`.keeper` holds namespaces, :mod:`.folder` the files, :mod:`.hosts` makes machines of them,
:mod:`.slurm` and its siblings run services on these. :mod:`.needs` says what is missing for which of them.
"""
