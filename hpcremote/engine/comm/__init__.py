"""MPI communicators whose blocking operations can be left, and the bookkeeping around them.

::

    World          one a process: begin/end of calls, release, renew, comm()
      Watch        the main thread's state: what it waits in, the alarm, the wake-up
      Comm, ...    what users hold: a communicator of mpi4py's, its blocking operations replaced
      Pending      requests that these hand out
      Left         those that nobody waits for any more
      agree        "is everybody here?", asked before anything that cannot be left
    Lent         the World of a program that called embed()

Only this package and ``engine/mpi.py`` import mpi4py, and they are imported only by engines that are MPI
ranks; ``current`` is what everybody may import.
"""
