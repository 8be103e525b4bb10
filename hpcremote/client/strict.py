"""Attributes that can be set are those there are: a mistyped flag is an error and not silence."""

from __future__ import annotations

from typing import Any

from hpcremote.files import did_you_mean


class Strict:
    """Refuses to set a public attribute that its class does not have.

    Attributes:
        settable: the public attributes that instances have.
    """

    settable: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name[0] != "_" and name not in self.settable and not hasattr(type(self), name):
            raise AttributeError(
                f"a {type(self).__name__} has no attribute {name!r} to be set"
                + (did_you_mean(name, self.settable) or f"; there are: {', '.join(self.settable)}")
            )
        object.__setattr__(self, name, value)
