"""The seconds that each op takes in each option, from profiles of a few whole models."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optuna_quant._common.rank_correlation import rank_correlation
from optuna_quant.backends.onnxruntime.costs.attribution import BEFORE
from optuna_quant.backends.onnxruntime.costs.attribution import OWN
from optuna_quant.backends.onnxruntime.costs.classes import FLOAT
from optuna_quant.backends.onnxruntime.costs.classes import nearest_class
from optuna_quant.backends.onnxruntime.costs.classes import option_class
from optuna_quant.backends.onnxruntime.costs.fitting import Fitted
from optuna_quant.backends.onnxruntime.costs.fitting import Pairing
from optuna_quant.backends.onnxruntime.costs.fitting import fit_part
from optuna_quant.backends.onnxruntime.costs.fitting import merged
from optuna_quant.costs import CostTable
from optuna_quant.costs import Validation


if TYPE_CHECKING:
    from numpy.typing import NDArray

    from optuna_quant.backends.onnxruntime.costs.neighbours import Neighbours
    from optuna_quant.costs.timing import Timing
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_PER_NODE = np.arange(-30, 31) * 1e-7
"""What a node may take beside what its profile says: up to three microseconds more or less."""

_SD_OF_MEDIAN_ABSOLUTE = 1.4826
"""The standard deviation of a normal distribution over the median of absolute values."""

_SESSIONS_DIFFER = 0.08
"""How far, as a logarithm, sessions of one model may differ in their time."""

_NOISE = 2.0
"""How many times the noise models must differ by to be ranked."""


@dataclass(frozen=True, eq=False)
class Observed:
    """A model that has been profiled.

    Args:
        state:
            The class of each op.
        parts:
            The seconds of each part of each op, as the profile says.
        counts:
            The nodes in each part.
        timing:
            The time of the model as a whole, without a profile.
    """

    state: Mapping[str, str]
    parts: Mapping[tuple[str, str], float]
    counts: Mapping[tuple[str, str], float]
    timing: Timing

    @property
    def profiled(self) -> float:
        """The sum over all nodes."""
        return sum(self.parts.values())

    @property
    def nodes(self) -> float:
        """How many nodes run."""
        return sum(self.counts.values())


def state_of(config: QuantConfig) -> dict[str, str]:
    """The class of each op in a configuration."""
    return {op: option_class(option) for op, option in config.ops.items()}


def latency_table(
    space: TuningSpace,
    observed: Sequence[Observed],
    neighbours: Neighbours,
    *,
    refused: Iterable[tuple[str, str]] = (),
) -> CostTable:
    """The table of what profiles have shown.

    Args:
        space:
            The tuning space.
        observed:
            The models; the first is the original one.
        neighbours:
            The neighbours of the ops.
        refused:
            Ops and classes that the runtime does not load. They cost as much as the op in floats
            and the whole original model on top, so that they do not look quick.
    """
    per_node = node_overhead(observed)
    factors = model_factors(observed, per_node)
    states = [each.state for each in observed]
    fitted = Fitted()

    def values(op: str, part: str) -> list[float]:
        key = op, part
        return [
            factor * max(0.0, each.parts.get(key, 0.0) + per_node * each.counts.get(key, 0.0))
            for each, factor in zip(observed, factors, strict=True)
        ]

    for op in (op for tunable in space.tunables for op in tunable.ops):
        behind, beside = neighbours.behind.get(op, ()), neighbours.beside.get(op, ())
        own = [Pairing(op, others) for others in (behind, beside) if others]
        before = [Pairing(other, (op,)) for other in neighbours.before.get(op, ())]
        fit_part(fitted, op, own, states, values(op, OWN))
        fit_part(fitted, op, before, states, values(op, BEFORE))
    rest = np.median(np.add(values("", OWN), values("", BEFORE)))
    never = set(refused)
    much = observed[0].timing.quickest
    costs: dict[str, dict[str, float]] = {}
    for tunable in space.tunables:
        for op in tunable.ops:
            known = fitted.ops[op]
            costs[op] = {
                o.label: _of_class(known, option_class(o))
                if (op, option_class(o)) not in never
                else _of_class(known, FLOAT) + much
                for o in tunable.options
            }
            # What everything is measured against, whether the space offers it or not.
            costs[op].setdefault(FLOAT, _of_class(known, FLOAT))
    return CostTable("latency", "s", costs, merged(fitted.boundaries), float(rest))


def _of_class(known: Mapping[str, float], wanted: str) -> float:
    return known[wanted if wanted in known else nearest_class(wanted, list(known))]


def node_overhead(observed: Sequence[Observed]) -> float:
    """What to add to what a profile says of each node.

    The runtime writes down every node, which takes a while, and the profile says nothing of what
    is between nodes; both are in proportion to the number of nodes. It is chosen so that the ratio
    of the whole model to the sum over its nodes differs least from model to model.

    Args:
        observed:
            The models.

    Returns:
        The seconds; usually less than zero.
    """
    sums = np.array([each.profiled for each in observed])
    counts = np.array([each.nodes for each in observed])
    whole = np.array([each.timing.quickest for each in observed])
    if not (np.all(whole > 0) and np.all(sums > 0)):
        return 0.0
    found = []
    for per_node in _PER_NODE:
        corrected = sums + per_node * counts
        if np.all(corrected > 0.2 * sums):
            logs = np.log(whole / corrected)
            # Of what explains the models as well as another, what is nearest to the usual.
            left = np.abs(logs - np.median(logs)).sum() + 2e4 * abs(per_node + 1e-6)
            found.append((float(left), float(per_node)))
    return min(found)[1]


def model_factors(observed: Sequence[Observed], per_node: float) -> list[float]:
    """By what to multiply the times of each model's nodes so that they sum up to the model's.

    It is the same for all models, but for those that are further off than sessions of one model
    differ: a profile has the time that passed, also while other work kept a node from going on.

    Args:
        observed:
            The models.
        per_node:
            What is added to each node.
    """
    sums = np.array([each.profiled + per_node * each.nodes for each in observed])
    whole = np.array([each.timing.quickest for each in observed])
    if not (np.all(whole > 0) and np.all(sums > 0)):
        return [1.0] * len(observed)
    logs = np.log(whole / sums)
    middle = float(np.median(logs))
    off = logs - middle
    beyond = np.sign(off) * np.maximum(0.0, np.abs(off) - _SESSIONS_DIFFER)
    return [float(factor) for factor in np.exp(middle + beyond)]


def validate(
    predicted: Sequence[float],
    timings: Sequence[Timing],
    repeated: Sequence[tuple[Timing, Timing]] = (),
) -> Validation | None:
    """Compare predictions with measurements; None if there are fewer than three.

    Args:
        predicted:
            The predicted seconds of each model.
        timings:
            The measured ones.
        repeated:
            The times of models of which two sessions were measured. The same model may be a few
            percent quicker in one session than in another, by where its weights are in memory; no
            number of runs shows that.
    """
    if len(predicted) < 3:
        return None
    measured: NDArray[np.float64] = np.array([timing.quickest for timing in timings])
    within = float(np.median([timing.noise for timing in timings]))
    noise = float(np.hypot(within, session_noise(repeated) * np.median(measured)))
    correlation = None
    if np.std(measured) > _NOISE * noise:
        correlation = 0.0
        if np.ptp(predicted) > 0:
            correlation = rank_correlation(predicted, [t.quickest for t in timings])
    return Validation(tuple(predicted), tuple(map(float, measured)), noise, correlation)


def session_noise(repeated: Sequence[tuple[Timing, Timing]]) -> float:
    """The relative standard deviation between sessions of the same model; 0 if none is known.

    Args:
        repeated:
            The times of two sessions of each of some models.
    """
    logs = [np.log(a.quickest / b.quickest) for a, b in repeated if min(a.runs + b.runs) > 0]
    if not logs:
        return 0.0
    # Of the difference of two; the middle one leaves out what hit one session alone.
    return float(np.median(np.abs(logs)) * _SD_OF_MEDIAN_ABSOLUTE / np.sqrt(2))
