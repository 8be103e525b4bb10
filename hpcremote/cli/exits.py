"""What the exit status of ``hpcremote`` means. This table is the documentation.

====  =====================================================================
code  meaning
====  =====================================================================
0     done
1     an error; one sentence on standard error says which
2     the command line is wrong
3     there is no such cluster
4     such a cluster is running already
5     processes could not be started, did not come up in time, or do not end
130   interrupted (Ctrl-C); 128 + n: ended by signal n (143: SIGTERM)
====  =====================================================================
"""

from __future__ import annotations

OK = 0
ERROR = 1
USAGE = 2
NO_CLUSTER = 3
ALREADY_RUNNING = 4
NOT_LAUNCHED = 5
INTERRUPTED = 130


def of_error(error: BaseException) -> int:
    """Return the exit status for an error of hpcremote."""
    from hpcremote.errors import AlreadyRunning, ClusterNotFound, LaunchError

    if isinstance(error, ClusterNotFound):
        return NO_CLUSTER
    if isinstance(error, AlreadyRunning):
        return ALREADY_RUNNING
    if isinstance(error, LaunchError):
        return NOT_LAUNCHED
    return ERROR
