"""The content key of a configuration: a sum of one hash per part, in any order.

So the key of a configuration that differs in one op costs one hash and not a pass over all ops.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
import hashlib
import json
from typing import TypeAlias


RecipeValue: TypeAlias = bool | int | float | str | None

_KEY_BYTES = 16
KEY_MODULUS = 1 << (8 * _KEY_BYTES)
"""Sums of hashes are taken modulo this number."""


def _digest(*parts: str) -> int:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=_KEY_BYTES).digest(), "big")


# A search comes back to the same options of the same ops all the time.
@lru_cache(maxsize=1 << 14)
def op_digest(op: str, label: str) -> int:
    """The part of a :attr:`QuantConfig.key` that one op contributes."""
    return _digest("op", op, label)


def recipe_digest(name: str, value: RecipeValue) -> int:
    """The part of a :attr:`QuantConfig.key` that one recipe contributes."""
    return _digest("recipe", name, json.dumps(value))


def calibration_digest(size: int | None) -> int:
    """The part of a :attr:`QuantConfig.key` that the calibration size contributes."""
    return _digest("calibration_size", json.dumps(size))


def combine_digests(parts: Iterable[int]) -> str:
    """Turn the parts of a configuration into its key, whatever their order."""
    return f"{sum(parts) % KEY_MODULUS:0{2 * _KEY_BYTES}x}"
