"""Decide what a study minimizes, and which ops are worth including in its space."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import json
import logging
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.costs.cheapest import cheapest
from optuna_quant.costs.gain_per_op import OpGain
from optuna_quant.costs.gain_per_op import by_op
from optuna_quant.costs.gain_per_op import op_gains
from optuna_quant.costs.gain_per_op import without
from optuna_quant.costs.gain_per_op import worse_ops
from optuna_quant.costs.known import KnownObjective
from optuna_quant.costs.no_gain import NoGain
from optuna_quant.costs.objective import LATENCY
from optuna_quant.costs.objective import MEASURES
from optuna_quant.costs.objective import OPS
from optuna_quant.costs.objective import SIZE
from optuna_quant.costs.objective import Objective
from optuna_quant.costs.objective import as_objective
from optuna_quant.costs.recorded_objective import keep_objective
from optuna_quant.study import record
from optuna_quant.study.blobs import read_text
from optuna_quant.study.blobs import write_text


if TYPE_CHECKING:
    import optuna

    from optuna_quant.costs.costs import Costs
    from optuna_quant.costs.study_costs import StudyCosts
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

# A model must be faster by more than the noise of measurements, but of that no more than this
# part of its time counts.
_MOST_NOISE = 0.02


@dataclass(frozen=True)
class SearchProblem:
    """What a study minimizes, and in which space.

    Attributes:
        objective:
            The objective, with the costs of the space.
        space:
            The tuning space, without the ops that are left out.
        left_out:
            The ops that are left out because quantizing them makes the model slower, by name.
        no_gain:
            If no configuration is better than FP32: that in words, with figures and what to do.
        is_other_space:
            Whether the study was started with another tuning space, so that nothing was decided.
    """

    objective: KnownObjective
    space: TuningSpace
    left_out: Mapping[str, OpGain | None]
    no_gain: str | None = None
    is_other_space: bool = False

    def keep(self, study: optuna.Study) -> None:
        """Write down what all workers and later runs must know."""
        name = self.objective.name
        keep_objective(study, name)
        attribute = f"{record.LEFT_OUT}:{self.space.prefix}"
        if self.left_out and self.no_gain is None and read_text(study, attribute) is None:
            write_text(study, attribute, json.dumps(list(self.left_out)))


def decide(
    study: optuna.Study,
    *,
    objective: Objective | None,
    space: TuningSpace,
    costs: StudyCosts,
    may_narrow: bool,
) -> SearchProblem:
    """Decide what a study is to make small, and which ops its space has.

    Without an objective of the user's it is the size, where only weights can be quantized and the
    backend counts sizes; otherwise the latency, if the study's costs predict it; where they do
    not, or cannot be measured, or the backend only counts sizes, the size; and where the backend
    knows no costs the number of ops in fallback. Where latency counts and the user has named no
    ops, those are left out whose quantization makes the model slower; a study that has started
    keeps its space.

    Args:
        study:
            The study.
        objective:
            What the user has asked for; :obj:`None` for the default.
        space:
            The tuning space as the backend gives it.
        costs:
            The costs that the study keeps, or will.
        may_narrow:
            Whether the user has left it to the library which ops to tune.

    Raises:
        ValueError:
            If the objective needs costs that are not known.
    """
    recorded = read_text(study, f"{record.SPACE}:{space.prefix}")
    kept = read_text(study, f"{record.LEFT_OUT}:{space.prefix}") if may_narrow else None
    names = () if kept is None else tuple(json.loads(kept))
    own = _without(space, names) if names else space
    if own is None or (recorded is not None and recorded != own.description):
        # It is about another model, or other ops: opening it says so.
        chosen = as_objective(OPS) if objective is None else objective
        return SearchProblem(KnownObjective(chosen, space), space, {}, is_other_space=True)
    chosen, found = _resolve(study, _meant(objective, space, costs), costs)
    relative = SIZE in chosen.measures and len(chosen.measures) > 1
    fp32_bytes = costs.fp32_bytes if relative else None
    if names:
        gains = _gains_of(chosen, space, found, names)
        return SearchProblem(KnownObjective(chosen, own, found, fp32_bytes=fp32_bytes), own, gains)
    narrowed = _narrowed(chosen, space, found, fp32_bytes, costs.original, may_narrow=may_narrow)
    if recorded is None or narrowed.no_gain is not None:
        return narrowed
    return SearchProblem(KnownObjective(chosen, space, found, fp32_bytes=fp32_bytes), space, {})


def _meant(objective: Objective | None, space: TuningSpace, costs: StudyCosts) -> Objective | None:
    """The objective of the user, or the size where only weights can be quantized.

    That saves memory, and time only where a model waits for its weights.
    """
    if objective is not None or costs.given is not None or not costs.can_be_counted:
        return objective
    modes = {option.mode for tunable in space.tunables for option in tunable.quantized}
    return as_objective(SIZE) if modes == {"weight_only"} else None


def _gains_of(
    objective: Objective, space: TuningSpace, costs: Costs | None, names: tuple[str, ...]
) -> dict[str, OpGain | None]:
    """What ops that a study has left out would gain by the costs as they are now."""
    table = KnownObjective(objective, space, costs).costs.tables.get(LATENCY)
    if table is None:
        return dict.fromkeys(names)
    found = by_op(op_gains(table, space, cheapest(table, space)), space)
    return {name: found.get(name) for name in names}


def _without(space: TuningSpace, names: tuple[str, ...]) -> TuningSpace | None:
    try:
        return without(space, names)
    except ValueError:
        return None


def _resolve(
    study: optuna.Study, objective: Objective | None, costs: StudyCosts
) -> tuple[Objective, Costs | None]:
    if objective is None:
        return _default(study, costs)
    needed = _needed(objective)
    if not needed:
        return objective, _counted(study, costs) if SIZE in objective.measures else None
    counted, why_uncounted = (None, "") if LATENCY in needed else costs.counted(study)
    if counted is not None and all(measure in counted.tables for measure in needed):
        return objective, counted
    found, why = costs.get(study, must=True)
    found = counted if found is None else found
    if found is None or any(measure not in found.tables for measure in needed):
        tables = sorted(costs.countable()[0] if found is None else found.tables)
        if found is not None and not costs.can_be_counted:
            why_uncounted = ""  # What is missing is not among what was measured.
        reason = why_uncounted or ("" if found is not None else why)
        raise ValueError(_unknown(objective, needed, tables, reason))
    if LATENCY in needed and not _predicts(found):
        _logger.warning(f"{_does_not_predict(found)} The answer may not be the fastest.")
    return objective, found


def check_can_be_known(objective: Objective | None, costs: StudyCosts) -> None:
    """Refuse an objective that needs measures which cannot be known, before a study is started.

    What a backend measures is known only once it has.

    Args:
        objective:
            What the user has asked for; :obj:`None` for the default.
        costs:
            The costs that the study will keep.

    Raises:
        ValueError:
            If a measure is neither given nor counted, and the backend measures none.
    """
    needed = [] if objective is None else _needed(objective)
    if objective is None or not needed:
        return
    if costs.given is not None:
        known, why = frozenset(costs.given.tables), ""
    elif costs.can_be_measured:
        return
    else:
        known, why = costs.countable()
        if LATENCY in needed:
            why = why or costs.why_not_here
    if not known.issuperset(needed):
        raise ValueError(_unknown(objective, needed, sorted(known), why))


def _unknown(
    objective: Objective, needed: Sequence[str], tables: Collection[str], why: str
) -> str:
    """That an objective needs what is not known, and what can be done."""
    missing = [measure for measure in needed if measure not in tables]
    others = [m for m in MEASURES if m not in (LATENCY, *missing)]
    usable = [m for m in others if m in tables or m in (SIZE, OPS)]
    reason = why or f"known are {' and '.join(tables)} alone"
    seconds = ", or a function that gives the seconds of a configuration"
    return (
        f"The objective {objective.name!r} needs {' and '.join(missing)} of each "
        f"configuration: {reason.rstrip('.')}. Give costs= (a table, or a JSON file"
        f"{seconds if missing == [LATENCY] else ''}), or use objective="
        f"{' or '.join(map(repr, usable))}."
    )


def _needed(objective: Objective) -> list[str]:
    """The measures for which a table is needed: all but what each model tells of itself."""
    several = len(objective.measures) > 1  # Then they are relative to those of FP32.
    return [
        measure
        for measure in objective.measures
        if measure in MEASURES and measure != OPS and (several or measure != SIZE)
    ]


def _default(study: optuna.Study, costs: StudyCosts) -> tuple[Objective, Costs | None]:
    found, why = costs.get(study, must=False)
    if found is None:
        if not costs.can_be_measured:
            counted = _counted(study, costs)
            usual = costs.usual_if_counted
            is_known = counted is not None and usual in counted.tables
            return (as_objective(usual), counted) if is_known else (as_objective(OPS), None)
        _logger.log(
            logging.WARNING if costs.has_samples else logging.INFO,
            "Costs could not be measured, so the search is for the smallest model instead of "
            f"the fastest (objective='size'): {why}",
        )
        return as_objective(SIZE), _counted(study, costs)
    if LATENCY not in found.tables:
        return as_objective(SIZE), found
    if not _predicts(found):
        _logger.warning(
            f"{_does_not_predict(found)} So the search is for the smallest model instead of the "
            "fastest (objective='size')."
        )
        return as_objective(SIZE), found
    return as_objective(LATENCY), found


def _counted(study: optuna.Study, costs: StudyCosts) -> Costs | None:
    """What can be counted, for a search that can do without, too."""
    found, why = costs.counted(study)
    if found is None and costs.can_be_counted:
        # Without samples a backend may well be unable to.
        _logger.log(
            logging.WARNING if costs.has_samples else logging.INFO,
            "The backend could not count costs, so the search does not know how large a model is "
            f"before it is built, and sees no difference between the options of an op: {why}",
        )
    return found


def _predicts(costs: Costs) -> bool:
    return costs.validation is None or costs.validation.predicts


def _does_not_predict(costs: Costs) -> str:
    assert costs.validation is not None
    return (
        "The cost table does not predict the time of whole models here (rank correlation "
        f"{costs.validation.rank_correlation:.2f})."
    )


def _narrowed(
    objective: Objective,
    space: TuningSpace,
    costs: Costs | None,
    fp32_bytes: float | None,
    original: str,
    *,
    may_narrow: bool,
) -> SearchProblem:
    known = KnownObjective(objective, space, costs, fp32_bytes=fp32_bytes)
    table = known.table
    measured = set(objective.measures) <= set(MEASURES) - {OPS}
    trusted = LATENCY not in objective.measures or (costs is not None and _predicts(costs))
    if not may_narrow or not measured or not trusted or table is None:
        return SearchProblem(known, space, {})
    if not may_gain(known, known.of(cheapest(table, space))):
        return SearchProblem(known, space, {}, str(NoGain(known, table, original)))
    if LATENCY not in objective.measures:
        return SearchProblem(known, space, {})
    # By the objective's own table: what saves size may be worth some time.
    worse = worse_ops(table, space)
    left = _without(space, tuple(worse)) if worse else space
    if left is None or not any(tunable.quantized for tunable in left.tunables):
        return SearchProblem(known, space, {}, str(NoGain(known, table, original)))
    if not worse:
        return SearchProblem(known, space, {})
    shown = by_op(op_gains(known.costs.table(LATENCY), space, cheapest(table, space)), space)
    names = [op for tunable in space.tunables if tunable.name in worse for op in tunable.ops]
    return SearchProblem(
        KnownObjective(objective, left, costs, fp32_bytes=fp32_bytes),
        left,
        {name: shown.get(name) for name in names},
    )


def may_gain(known: KnownObjective, cost: float) -> bool:
    """Whether what has this cost is better than FP32, by more than noise.

    Args:
        known:
            The objective.
        cost:
            The cost.
    """
    return cost < known.fp32_cost - _noise(known)


def _noise(known: KnownObjective) -> float:
    """How much cheaper than FP32 is no cheaper."""
    validation = known.costs.validation
    if known.measures != (LATENCY,) or validation is None:
        return 0.0
    return min(validation.noise, _MOST_NOISE * known.fp32_cost)
