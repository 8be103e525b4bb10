"""Launchers by name: user's folder, then the site's, then those that come with hpcremote."""

from __future__ import annotations

from hpcremote import files
from hpcremote.errors import LauncherError
from hpcremote.launch.spec import Launcher, parse


def load(name: str) -> Launcher:
    """Return the launcher *name*.

    Raises:
        LauncherError: there is none, or its file is wrong.
    """
    found = files.find_all("launchers", name) if name and "/" not in name else []
    if not found:
        known = list(files.available("launchers"))
        hint = files.did_you_mean(name, known) or f"; there are: {', '.join(known) or 'none'}"
        raise LauncherError(f"there is no launcher {name!r}{hint}")
    try:
        text = found[0].read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(f"cannot read {found[0]}: {error}") from None
    return parse(text, name, str(found[0]))
