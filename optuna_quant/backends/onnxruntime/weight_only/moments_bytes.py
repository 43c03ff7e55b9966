"""Moments of inputs as bytes, for other processes."""

from __future__ import annotations

from collections.abc import Mapping
import io
import json
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant._common.sealed_bytes import array_bytes
from optuna_quant._common.sealed_bytes import seal
from optuna_quant._common.sealed_bytes import unseal
from optuna_quant.backends.weight_algorithms.moments import InputMoments


if TYPE_CHECKING:
    from numpy.typing import NDArray


_MARK = b"optuna_quant moments 1\n"


def pack_moments(
    key: str, moments: Mapping[tuple[str, int], InputMoments], unusable: Mapping[str, str]
) -> bytes:
    """Moments as bytes, exact to the last bit.

    Args:
        key:
            What they were computed from, in one hash; :func:`unpack_moments` compares it.
        moments:
            The moments of tensors, by name and sampling size.
        unusable:
            Why other tensors have none, by name.
    """
    head = {"key": key, "places": list(moments), "unusable": dict(unusable)}
    arrays: dict[str, NDArray[Any]] = {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)}
    for number, each in enumerate(moments.values()):
        arrays.update((f"{number}:{name}", a) for name, a in each.to_arrays().items())
    return seal(_MARK, array_bytes(arrays))


def unpack_moments(
    data: bytes, key: str
) -> tuple[dict[tuple[str, int], InputMoments], dict[str, str]]:
    """Inverse of :func:`pack_moments`.

    Raises:
        ValueError:
            If these are no such bytes, they are damaged, or have another key.
    """
    content = unseal(_MARK, data, what="moments of inputs")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        head = json.loads(file["head"].tobytes())
        if head["key"] != key:
            raise ValueError("These are the moments of another model's inputs, or of other data.")
        found = {}
        for number, (name, size) in enumerate(head["places"]):
            own = {part: file[f"{number}:{part}"] for part in ("count", "upper", "magnitudes")}
            found[name, size] = InputMoments.from_arrays(own)
    return found, head["unusable"]
