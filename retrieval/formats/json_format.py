"""Results as JSON: dataclasses become what the module `json` writes."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """Turn dataclasses into dicts, tuples into lists and numbers that are not finite into None, all the way down.

    An inner object that has a method `to_dict` is what that gives.
    """

    def inner(value: Any) -> Any:
        return value.to_dict() if hasattr(value, "to_dict") else plain(value)

    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: inner(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: inner(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [inner(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
