"""What several plots read from the record of a study."""

from __future__ import annotations

from collections.abc import Mapping
import enum
from types import MappingProxyType
from typing import TYPE_CHECKING
from typing import TypeAlias

from optuna.logging import get_logger
from optuna.trial import TrialState

from optuna_quant.costs.objective import as_objective
from optuna_quant.selection.answer import candidates
from optuna_quant.selection.answer import closest
from optuna_quant.selection.answer import ranked
from optuna_quant.sequential import Decision
from optuna_quant.study.population_record import read_population
from optuna_quant.study.trial_view import views
from optuna_quant.tuning.measured_once import measured_first
from optuna_quant.tuning.outcome import Outcome
from optuna_quant.tuning.recorded_study import RecordedTrials


if TYPE_CHECKING:
    import optuna

    from optuna_quant.costs.objective import Objective
    from optuna_quant.costs.objective import ObjectiveLike
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace
    from optuna_quant.study.baseline import Baseline
    from optuna_quant.study.trial_view import TrialView


_logger = get_logger(__name__)

Searched: TypeAlias = "optuna.Study | Outcome"
"""What a plot is drawn of: a study, or the result of a search, which has one."""


class Judged(enum.StrEnum):
    """What came out of a trial, as legends call it: whether the criterion is met."""

    MET = "met"
    MISSED = "not met"
    PARTIAL = "partly evaluated"
    PARTIAL_MISSED = "partly evaluated, not met"
    FP32 = "FP32 model"
    FAILED = "failed"
    OPEN = "not judged"


SYMBOLS: Mapping[Judged, tuple[str, str]] = MappingProxyType(
    {
        Judged.MET: ("circle", "o"),
        Judged.MISSED: ("circle-open", "o"),
        Judged.PARTIAL: ("diamond-open", "D"),
        Judged.PARTIAL_MISSED: ("x-thin-open", "x"),
        Judged.FP32: ("square", "s"),
        Judged.FAILED: ("triangle-down-open", "v"),
        Judged.OPEN: ("line-ew-open", "_"),
    }
)
"""The marker of each for Plotly, and for Matplotlib, the same in all plots."""

HOLLOW = frozenset({Judged.MISSED, Judged.PARTIAL, Judged.FAILED})
"""Those whose marker is not filled."""


def study_of(given: Searched) -> optuna.Study:
    """The study that is drawn.

    Args:
        given:
            A study, or the result of a search.
    """
    return given.study if isinstance(given, Outcome) else given


def warn_of_nothing(study: optuna.Study, what: str) -> None:
    """Say why a plot is empty.

    Args:
        study:
            The study.
        what:
            What it lacks.

    Raises:
        ValueError:
            If all its trials are of another search, so that no plot can be drawn of it.
    """
    every = views(study)
    if every and all(view.is_foreign for view in every):
        raise ValueError(
            f"The study {study.study_name!r} has no trial of optuna_quant: none of its "
            f"{len(every)} trials has a parameter of a tuning space. Give a study that tune(), "
            "optuna-quant tune or a sampler of optuna_quant has searched."
        )
    _logger.warning(f"The study {study.study_name!r} has {what}, so there is nothing to plot.")


def criterion_of(study: optuna.Study, given: AccuracyCriterion | None = None) -> AccuracyCriterion:
    """The criterion that is given, or that a study was started with.

    Args:
        study:
            The study.
        given:
            The criterion; None for that of the study.
    """
    return RecordedTrials(study).criterion if given is None else given


def objective_of(study: optuna.Study, objective: ObjectiveLike | None) -> Objective:
    """The objective that is given, or that of the study.

    Args:
        study:
            The study.
        objective:
            The objective; None for that of the study.

    Raises:
        ValueError:
            If it is not known, or that of the study is a function.
    """
    if objective is not None:
        return as_objective(objective)
    try:
        return RecordedTrials(study).objective()
    except ValueError as error:
        raise ValueError(
            f"{str(error).partition(', so its record')[0]}, which the record does not hold. Name "
            "another objective, such as objective='size' or objective='ops'."
        ) from error


def metric_name(study: optuna.Study) -> str:
    """What the metric of a study is called: as the study says, or as its samples do.

    Args:
        study:
            The study.
    """
    if study.metric_names:
        return str(study.metric_names[0])
    population = read_population(study)
    return population.metric_name if population and population.metric_name else "metric"


def judged(view: TrialView, criterion: AccuracyCriterion, baseline: Baseline | None) -> Judged:
    """What came out of a trial, by its metric and the criterion.

    Args:
        view:
            The trial.
        criterion:
            When a metric is good enough.
        baseline:
            The baseline; None if it was not measured.
    """
    if view.state == TrialState.FAIL:
        return Judged.FAILED
    if view.is_complete and not view.is_quantized:
        return Judged.FP32
    if not view.is_finished or baseline is None:
        return Judged.OPEN
    if view.is_complete and view.metric is not None:
        meets = criterion.meets(view.metric, baseline.value)
        return Judged.MET if meets else Judged.MISSED
    evidence = view.evidence
    misses = view.met is False or (evidence is not None and evidence.decision == Decision.FAILS)
    return Judged.PARTIAL_MISSED if misses else Judged.PARTIAL


def has_quantized(study: optuna.Study) -> bool:
    """Whether a study has a finished trial of a quantized model.

    Args:
        study:
            The study.
    """
    return any(view.is_finished and view.is_quantized for view in views(study))


def config_of(space: TuningSpace, view: TrialView) -> QuantConfig | None:
    """The configuration of a trial.

    Args:
        space:
            The tuning space.
        view:
            The trial.

    Returns:
        The configuration; :obj:`None` if its parameters are not recorded, or of another space.
    """
    try:
        return space.config_from_params(view.known_params)
    except (KeyError, ValueError):
        return None


def answer_of(study: optuna.Study, given: AccuracyCriterion | None = None) -> int | None:
    """The number of the trial that is the answer, or that comes closest to one.

    Args:
        study:
            The study.
        given:
            The criterion; None for that of the study.

    Returns:
        The number; :obj:`None` if no quantized model was evaluated on all samples.
    """
    criterion = criterion_of(study, given)
    found = candidates(study, criterion)
    try:
        objective = RecordedTrials(study).objective()
    except ValueError:  # A function: then the fewest ops in fallback.
        objective = as_objective("ops")
    met = measured_first(study, ranked(found, objective), objective)
    best = met[0] if met else closest(found, objective)
    return None if best is None else best.trial.number


def trial_of(study: optuna.Study, number: int) -> TrialView:
    """The view of a trial.

    Args:
        study:
            The study.
        number:
            The number of the trial.

    Raises:
        ValueError:
            If the study has no such trial.
    """
    found = views(study)
    is_number = isinstance(number, int) and not isinstance(number, bool)
    if not is_number or not 0 <= number < len(found):
        has = f"trials 0 to {len(found) - 1}" if found else "no trials"
        raise ValueError(
            f"trial must be the number of a trial, but got {number!r}; the study "
            f"{study.study_name!r} has {has}."
        )
    return found[number]
