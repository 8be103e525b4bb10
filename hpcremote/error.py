"""The exceptions under the name that ipyparallel gives them: ``from hpcremote import error``."""

from hpcremote.errors import *  # noqa: F403
