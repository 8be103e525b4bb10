"""What we use of cloudpickle's inside, in one place, so that new versions of it can be checked against it."""

from __future__ import annotations

from cloudpickle.cloudpickle import (
    _DYNAMIC_CLASS_TRACKER_BY_ID as CLASSES_BY_ID,
)
from cloudpickle.cloudpickle import (
    _PICKLE_BY_VALUE_MODULES as BY_VALUE_MODULES,
)
from cloudpickle.cloudpickle import (
    Pickler,
)
from cloudpickle.cloudpickle import (
    _class_setstate as set_class_state,
)
from cloudpickle.cloudpickle import (
    _is_registered_pickle_by_value as is_registered_by_value,
)
from cloudpickle.cloudpickle import (
    _make_skeleton_class as make_skeleton,
)
from cloudpickle.cloudpickle import (
    _should_pickle_by_reference as is_by_reference,
)

__all__ = [
    "BY_VALUE_MODULES",
    "CLASSES_BY_ID",
    "Pickler",
    "is_by_reference",
    "is_registered_by_value",
    "make_skeleton",
    "set_class_state",
]
