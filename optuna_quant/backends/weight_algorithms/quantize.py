"""Quantize a weight in groups, by the name of an algorithm."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant.backends.weight_algorithms.awq import awq
from optuna_quant.backends.weight_algorithms.gptq import GPTQOptions
from optuna_quant.backends.weight_algorithms.gptq import gptq
from optuna_quant.backends.weight_algorithms.hqq import half_quadratic
from optuna_quant.backends.weight_algorithms.hqq import half_quadratic_float
from optuna_quant.backends.weight_algorithms.k_quant import k_quant
from optuna_quant.backends.weight_algorithms.levels import BITS
from optuna_quant.backends.weight_algorithms.levels import SCHEMES
from optuna_quant.backends.weight_algorithms.levels import Levels
from optuna_quant.backends.weight_algorithms.rtn import round_to_nearest


if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from optuna_quant.backends.weight_algorithms.grouped import GroupedWeight
    from optuna_quant.backends.weight_algorithms.levels import Scheme
    from optuna_quant.backends.weight_algorithms.moments import InputMoments

_LARGEST = float(np.finfo(np.float32).max)

# The name of an algorithm says its options too, so that a label does.
_GPTQ: Mapping[str, GPTQOptions] = MappingProxyType(
    {
        "gptq": GPTQOptions(),
        "gptq_mse": GPTQOptions(mse=True),
        "gptq_act": GPTQOptions(actorder=True),
        "gptq_act_mse": GPTQOptions(actorder=True, mse=True),
    }
)
_FROM_WEIGHTS: Mapping[str, Callable[[NDArray[Any], Levels, int], GroupedWeight]] = (
    MappingProxyType(
        {
            "rtn": round_to_nearest,
            "hqq": half_quadratic,
            "hqq_float": half_quadratic_float,
            "k_quant": k_quant,
        }
    )
)

WEIGHT_ONLY_ALGORITHMS = (
    *("rtn", "gptq", "awq", "hqq", "k_quant"),
    *("gptq_mse", "gptq_act", "gptq_act_mse", "hqq_float"),
)
NEEDS_INPUTS = frozenset({*_GPTQ, "awq"})
"""Algorithms that need the moments of the layer's inputs."""
FLOAT_ZERO_POINTS = frozenset({"hqq_float"})
"""Algorithms whose zero points lie between the codes; for asymmetric weights only."""

ALGORITHM_VERSIONS: Mapping[str, int] = MappingProxyType(
    {name: 2 if name in NEEDS_INPUTS else 1 for name in WEIGHT_ONLY_ALGORITHMS}
    | {"gptq": 3, "gptq_act": 3}
)
"""Raised where an algorithm gives other codes or scales than before: kept weights, and studies,
then count as those of another one."""


def quantize_grouped(
    weight: NDArray[Any],
    *,
    bits: int,
    group_size: int | None,
    scheme: Scheme,
    algorithm: str,
    moments: InputMoments | None = None,
) -> GroupedWeight:
    """Quantize a weight along its inputs in groups.

    The result depends on the arguments alone. No algorithm is worse than RTN by what it
    minimizes: GPTQ and AWQ by the squared error of the layer's outputs, HQQ and k-quant by their
    norm of the weight's error.

    Args:
        weight:
            Finite floats of shape ``[outputs, inputs]``; the transpose of a ``MatMul``'s weight.
        bits:
            Bits of a code: 2, 3, 4 or 8.
        group_size:
            How many inputs of an output share a scale; the last group may be shorter.
            :obj:`None` for all inputs.
        scheme:
            ``"sym"``: the zero point is ``2**(bits - 1)``; ``"asym"``: each group has its own.
        algorithm:
            One of :data:`WEIGHT_ONLY_ALGORITHMS`.
        moments:
            Of the layer's inputs; needed by those in :data:`NEEDS_INPUTS`, not used by others.

    Raises:
        ValueError: If an argument is not as described.
    """
    _check_options(bits, group_size, scheme, algorithm)
    _check_weight(weight)
    levels = Levels(bits, scheme)
    width = weight.shape[1] if group_size is None else group_size
    if algorithm in _FROM_WEIGHTS:
        return _FROM_WEIGHTS[algorithm](weight, levels, width)
    _check_moments(moments, algorithm, weight.shape[1])
    assert moments is not None
    if algorithm in _GPTQ:
        return gptq(weight, levels, width, moments, _GPTQ[algorithm])
    return awq(weight, levels, width, moments)


def _check_options(bits: int, group_size: int | None, scheme: str, algorithm: str) -> None:
    if bits not in BITS:
        raise ValueError(f"bits must be one of {BITS}, but it is {bits!r}")
    if group_size is not None and group_size < 1:
        raise ValueError(f"group_size must be at least 1 or None, but it is {group_size}")
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {SCHEMES}, but it is {scheme!r}")
    if algorithm not in WEIGHT_ONLY_ALGORITHMS:
        raise ValueError(
            f"algorithm must be one of {WEIGHT_ONLY_ALGORITHMS}, but it is {algorithm!r}"
        )
    if algorithm in FLOAT_ZERO_POINTS and scheme != "asym":
        raise ValueError(f"a weight by {algorithm!r} has zero points, but scheme is {scheme!r}")


def _check_weight(weight: NDArray[Any]) -> None:
    if weight.ndim != 2 or weight.size == 0:
        raise ValueError(
            f"a weight must be of shape [outputs, inputs], but its shape is {weight.shape}"
        )
    if weight.dtype.kind != "f":
        raise ValueError(f"a weight must be of floats, but its dtype is {weight.dtype}")
    # NaN passes through both; no array of the weight's size is made.
    low, high = float(weight.min()), float(weight.max())
    if not -_LARGEST <= low <= high <= _LARGEST:
        raise ValueError(
            f"a weight must be finite in float32, but it goes from {low} to {high}: leave this "
            "op in floats"
        )


def _check_moments(moments: InputMoments | None, algorithm: str, inputs: int) -> None:
    if moments is None or moments.count == 0:
        raise ValueError(
            f"algorithm {algorithm!r} needs moments of the layer's inputs: give calibration data"
        )
    if moments.inputs != inputs:
        raise ValueError(
            f"the weight has {inputs} inputs, but the moments are of {moments.inputs} inputs"
        )
