"""What ipyparallel's Client has and ours has not."""

from __future__ import annotations

#: Names, and what to do instead.
ABSENT = {
    "activate": "there are no %px magics: use view.execute(code)",
    "become_dask": "it starts no dask workers",
    "become_distributed": "it starts no dask workers",
    "db_query": "the controller keeps no database of results",
    "executor": "there is no load balancing: use a view's map, or concurrent.futures with apply_async",
    "hub_history": "the controller keeps no history: use Client.history",
    "load_balanced_view": "there is no load balancing: use direct_view().map, which deals blocks",
    "purge_hub_results": "the controller keeps no results",
    "resubmit": "the arguments of a call are not kept: call again",
    "send_signal": "engines are not signalled one by one: end them with Client.shutdown",
    "stop_dask": "it starts no dask workers",
    "stop_distributed": "it starts no dask workers",
}
