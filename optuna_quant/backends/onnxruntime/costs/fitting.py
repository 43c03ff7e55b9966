"""Sharing out what models cost among ops, options and boundaries: small least-squares problems."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import numpy as np

from optuna_quant.backends.onnxruntime.costs.classes import FLOAT
from optuna_quant.backends.onnxruntime.costs.classes import is_quantized
from optuna_quant.costs import Boundary


_RIDGE = 1e-3
"""How strongly what need not be paid at a boundary is kept small, relative to an observation."""


@dataclass
class Fitted:
    """What was found.

    Args:
        ops:
            The cost of each class of each op.
        boundaries:
            What is paid between ops.
    """

    ops: dict[str, dict[str, float]] = field(default_factory=dict)
    boundaries: list[Boundary] = field(default_factory=list)

    def add(self, op: str, costs: Mapping[str, float]) -> None:
        """Add costs to those of an op."""
        mine = self.ops.setdefault(op, {})
        for name, cost in costs.items():
            mine[name] = mine.get(name, 0.0) + cost


@dataclass(frozen=True)
class Pairing:
    """Ops that an op's cost may depend on.

    Args:
        producer:
            The op on whose side of the boundary nothing is counted.
        consumers:
            The ops on the other side.
    """

    producer: str
    consumers: tuple[str, ...]


def fit_part(
    fitted: Fitted,
    op: str,
    pairings: Sequence[Pairing],
    states: Sequence[Mapping[str, str]],
    values: Sequence[float],
    *,
    ridge: float = _RIDGE,
) -> None:
    """Explain one part of the cost of several models by the states of a few ops.

    The part costs something in each class of its own op, and something more where that op and
    others of a pairing differ in precision; nothing costs less than nothing (Lawson and Hanson's
    non-negative least squares).

    Args:
        fitted:
            What is found is added here.
        op:
            The op that the part belongs to.
        pairings:
            Between which ops something may be paid.
        states:
            The class of each op in each model.
        values:
            What the part costs in each model.
        ridge:
            The weight that keeps boundaries small where the models do not tell.
    """
    from scipy.optimize import nnls

    y = np.asarray(values, dtype=np.float64)
    classes = list(dict.fromkeys(state.get(op, FLOAT) for state in states))
    scale = float(np.abs(y).max())
    if scale == 0.0:
        fitted.add(op, dict.fromkeys(classes, 0.0))
        return
    columns = [[float(state.get(op, FLOAT) == name) for state in states] for name in classes]
    kinds: list[tuple[Pairing, str]] = []
    for pairing in pairings:
        for kind in ("quantize", "dequantize"):
            column = [float(_is_paid(pairing, kind, state)) for state in states]
            # What is paid in all models or in none cannot be told from the rest.
            if 0.0 < sum(column) < len(column):
                columns.append(column)
                kinds.append((pairing, kind))
    matrix = np.array(columns).T
    penalty = np.zeros((len(kinds), len(columns)))
    penalty[:, len(classes) :] = np.sqrt(ridge) * np.eye(len(kinds))
    found, _ = nnls(
        np.vstack([matrix, penalty]), np.concatenate([y / scale, np.zeros(len(kinds))])
    )
    found *= scale
    fitted.add(op, dict(zip(classes, map(float, found), strict=False)))
    for (pairing, kind), cost in zip(kinds, found[len(classes) :], strict=True):
        if cost > 0.0:
            fitted.boundaries.append(
                Boundary(pairing.producer, pairing.consumers, **{kind: float(cost)})
            )


def _is_paid(pairing: Pairing, kind: str, state: Mapping[str, str]) -> bool:
    consumers = [is_quantized(state.get(other, FLOAT)) for other in pairing.consumers]
    if not is_quantized(state.get(pairing.producer, FLOAT)):
        return kind == "quantize" and any(consumers)
    return kind == "dequantize" and not all(consumers)


def merged(boundaries: Sequence[Boundary]) -> tuple[Boundary, ...]:
    """Boundaries between the same ops as one."""
    sums: dict[tuple[str, tuple[str, ...]], tuple[float, float]] = {}
    for b in boundaries:
        quantize, dequantize = sums.get((b.producer, b.consumers), (0.0, 0.0))
        sums[b.producer, b.consumers] = quantize + b.quantize, dequantize + b.dequantize
    return tuple(Boundary(*key, *costs) for key, costs in sums.items())
