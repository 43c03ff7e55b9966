"""Write facts as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from dataclasses import is_dataclass
import json
import math
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from optuna_quant._common.json_value import Json


def to_json(facts: object) -> str:
    """Facts as JSON text, with the names of their fields.

    Args:
        facts:
            A dataclass of plain values, and of such dataclasses.
    """
    return json.dumps(plain(facts), indent=1, allow_nan=False) + "\n"


def plain(value: object) -> Json:
    """A value in types that JSON has; numbers that are not finite become None."""
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return str(value)
