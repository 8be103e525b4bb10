"""How ranks are spread over nodes where no script can ask for it: Grid Engine's parallel environments decide.

::

    profile: nodes, ranks_per_node ──▶ as many slots are asked for, and what spreads them is named
                                       what contradicts it (`qconf -sp NAME`, where that is here) is refused
"""

from __future__ import annotations

from hpcremote.errors import LaunchError
from hpcremote.launch import text
from hpcremote.launch.batch import commands
from hpcremote.launch.batch.draft import Draft
from hpcremote.launch.batch.scheduler import Spread


def note(draft: Draft) -> str:
    """Return who spreads ranks, if the profile has a layout that cannot be asked for; else nothing."""
    how = draft.scheduler.spread
    if how is None or draft.n == 0 or draft.values.get("ranks_per_node") is None:
        return ""
    return text.fill(how.say, draft.values)


def check(draft: Draft) -> None:
    """Refuse a layout that the scheduler would not give, as far as it tells.

    Raises:
        LaunchError: it tells so.
    """
    how, who = draft.scheduler.spread, note(draft)
    if how is None or not who:
        return
    try:
        said = commands.run(text.command(how.command, draft.values)).out
    except LaunchError:
        return  # a dry run elsewhere; a start says by itself that there is no such batch system
    nodes, each = int(str(draft.values["nodes"])), int(str(draft.values["ranks_per_node"]))
    if puts := contradiction(how, said, nodes, each):
        raise LaunchError(
            f"{draft.scheduler.name} puts {puts}, which contradicts nodes: {nodes}, ranks_per_node: {each} "
            f"(profile {draft.values['profile']!r}): {who}"
        )


def contradiction(how: Spread, said: str, nodes: int, each: int) -> str:
    """Return where ranks are put instead, by what the scheduler *said*; nothing if the layout is possible."""
    match = how.each.search(said)
    if match and int(match["ranks"]) != each:
        return f"{match['ranks']} rank{'' if match['ranks'] == '1' else 's'} on each node"
    return "all ranks on one node" if nodes > 1 and how.one.search(said) else ""
