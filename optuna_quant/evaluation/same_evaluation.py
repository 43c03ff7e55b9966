"""Check that the metrics of a study come from the evaluation that is used now."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from functools import partial
import hashlib
import json
import math
import time
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
from optuna.logging import get_logger

from optuna_quant._common.printable import listed
from optuna_quant.evaluation.rebuild import rebuild
from optuna_quant.evaluation.signature import DATASET
from optuna_quant.evaluation.signature import FUNCTION
from optuna_quant.evaluation.signature import MAY_BE_THE_SAME
from optuna_quant.evaluation.signature import METRIC_FUNCTION
from optuna_quant.evaluation.signature import PREPROCESSING
from optuna_quant.evaluation.signature import different_parts
from optuna_quant.evaluation.value import as_metric
from optuna_quant.evaluation.value import for_fp32
from optuna_quant.selection.answer import best_met_trial
from optuna_quant.selection.answer import closest_trial
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.errors import BaselineError
from optuna_quant.study.errors import ChangedEvaluationError
from optuna_quant.study.others import has_results
from optuna_quant.study.others import running_elsewhere
from optuna_quant.study.population_record import read_population
from optuna_quant.study.trial_view import views
from optuna_quant.workers.backoff import Backoff


if TYPE_CHECKING:
    from numpy.typing import NDArray
    import optuna

    from optuna_quant.backends.base import Backend
    from optuna_quant.backends.base import NativeModel
    from optuna_quant.criteria import AccuracyCriterion
    from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
    from optuna_quant.evaluation.setup import Evaluate
    from optuna_quant.sequential import Population
    from optuna_quant.space.config import QuantConfig
    from optuna_quant.space.space import TuningSpace


_logger = get_logger(__name__)

EVALUATION = "optuna_quant:evaluation"
"""User attribute of a study: what its metrics rest on, by part."""

_PLURALS = ("data", "labels", "inputs")
# Parts whose strings say nothing to people.
_HASHES = ("data", "labels", DATASET, PREPROCESSING)
# Threads and processors sum in other orders.
_RELATIVE = 1e-5
_ABSOLUTE = 1e-9
# How many of the scores of single samples may differ, by how much of their range.
_FEW = 0.01
_SAME_SCORE = 1e-3


def keep_evaluation(study: optuna.Study, signature: Mapping[str, str]) -> None:
    """Write down with what the baseline is measured, before it is."""
    study.set_user_attr(EVALUATION, dict(signature))


def check_evaluation(
    study: optuna.Study,
    signature: Mapping[str, str],
    differs: Callable[[], str | None],
    *,
    timeout: float,
) -> bool:
    """Refuse a study whose metrics are those of another evaluation.

    Where the parts that differ make other metrics for sure (the name of the metric, the data, the
    labels), nothing is measured. Where they need not (a function that was edited), or where the
    study does not say, models are measured again; if they have the metrics that the study holds,
    it goes on.

    Args:
        study:
            The study.
        signature:
            What the metrics rest on here, see
            :func:`optuna_quant.evaluation.signature.signature_of`.
        differs:
            Measures again, and says what differs from the record; :obj:`None` if nothing.
        timeout:
            For how many seconds to wait for a baseline that another process is measuring with
            what may be another function.

    Returns:
        Whether the study has a baseline, so that all is known to fit.

    Raises:
        ChangedEvaluationError:
            If its metrics are not those of this evaluation.
    """
    known = study.user_attrs.get(EVALUATION)
    if known is not None and known != signature:
        _await_baseline(study, timeout)
    baseline = get_baseline(study)
    parts = [] if known is None else different_parts(known, signature)
    certain = [part for part in parts if part not in MAY_BE_THE_SAME]
    if baseline is None:
        if certain and running_elsewhere(study):
            raise ChangedEvaluationError(_changed(study, certain, known or {}, signature))
        keep_evaluation(study, signature)
        return False
    accepted = f"{EVALUATION}:{_digest(signature)}"
    if known is not None and (not parts or (known != signature and _has(study, accepted))):
        return True
    if certain:
        raise ChangedEvaluationError(_changed(study, certain, known or {}, signature))
    if baseline.trial is None and not has_results(study):  # The user has given it.
        keep_evaluation(study, signature)
        return True
    shown = (
        _not_recorded(study) if known is None else _started_with(study, parts, known, signature)
    )
    found = differs()
    if found is not None:
        raise ChangedEvaluationError(f"{shown}. {found} {_CURE}")
    _logger.warning(
        f"{shown}. Evaluated again, the models have the same metrics as in the study, so it "
        "continues."
    )
    if known is None:
        keep_evaluation(study, signature)
    else:
        study.set_user_attr(accepted, True)
    return True


_CURE = (
    "Its results cannot be compared with the ones here. Use what it was started with, another "
    "study name or storage, or start it over (on the command line with --fresh)."
)


def _not_recorded(study: optuna.Study) -> str:
    """Say that another objective has run a study, and what else its values depend on."""
    others = {name: None for view in views(study) for name in view.other_params}
    if not others:
        return f"The study {study.study_name!r} does not record the evaluation it was started with"
    return (
        f"The objective that the study {study.study_name!r} was started with also has the "
        f"parameters {listed(list(map(repr, others)))}, which QuantObjective ignores"
    )


def _await_baseline(study: optuna.Study, timeout: float) -> None:
    """Wait while another process that lives may be measuring the baseline."""
    until, backoff = time.monotonic() + timeout, Backoff()
    while get_baseline(study) is None and running_elsewhere(study):
        if time.monotonic() > until:
            return
        backoff()


def _has(study: optuna.Study, name: str) -> bool:
    return bool(study.user_attrs.get(name))


def _digest(signature: Mapping[str, str]) -> str:
    text = json.dumps(dict(signature), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _changed(
    study: optuna.Study, parts: list[str], known: Mapping[str, str], given: Mapping[str, str]
) -> str:
    return f"{_started_with(study, parts, known, given)}. {_CURE}"


def _started_with(
    study: optuna.Study, parts: list[str], known: Mapping[str, str], given: Mapping[str, str]
) -> str:
    if (FUNCTION in known) != (FUNCTION in given):
        there, here = map(_shown_kind, (known, given))
        what = f"{there}, but here it is {here}"
    else:
        what = ", ".join(_shown_part(part, known, given) for part in parts)
    return f"The study {study.study_name!r} was started with {what}"


def _shown_kind(signature: Mapping[str, str]) -> str:
    """Name what computes the metrics, for the two kinds of evaluation."""
    if FUNCTION in signature:
        return f"the function {_name(signature[FUNCTION])!r}"
    return f"the metric {signature.get('metric', 'of another evaluation')}"


def _shown_part(part: str, known: Mapping[str, str], given: Mapping[str, str]) -> str:
    if part not in known or part not in given:
        return f"no {part}" if part not in known else f"{_other(part)}, and here there is none"
    there, here = known[part], given[part]
    if part in (FUNCTION, METRIC_FUNCTION):
        if _name(there) == _name(here):
            return f"what may be another version of the {part} {_name(here)!r}"
        return f"another {part} ({_name(there)!r}; here {_name(here)!r})"
    shown = "" if part in _HASHES else f" ({there}; here {here})"
    return f"{_other(part)}{shown}"


def _other(part: str) -> str:
    return f"{'other' if part in _PLURALS else 'another'} {part}"


def _name(text: str) -> str:
    return text.rpartition(" ")[0]


def find_difference(
    study: optuna.Study,
    *,
    backend: Backend,
    space: TuningSpace,
    criterion: AccuracyCriterion,
    evaluate: Evaluate,
    samples: SampleEvaluation | None,
    calibrate: Callable[[QuantConfig], None],
    limited: Callable[[Callable[[], Any]], Any],
) -> str | None:
    """Measure again what the answer of a study rests on.

    That is the FP32 model and, where there is one, the model that would be the answer or comes
    closest: an edited metric can be the same for a model that is always right.

    Args:
        study:
            The study. It has a baseline.
        backend:
            Builds the models.
        space:
            The tuning space.
        criterion:
            Says which model would be the answer.
        evaluate:
            Gives the metric of a model.
        samples:
            The same as scores of single samples, if the study may keep such.
        calibrate:
            Calibrates the backend for a configuration.
        limited:
            Runs an evaluation, and raises if it takes too long.

    Returns:
        What differs, as a sentence; :obj:`None` if nothing does.

    Raises:
        BaselineError:
            If the FP32 model cannot be evaluated.
    """
    baseline = get_baseline(study)
    assert baseline is not None
    better = criterion.higher_is_better
    fp32 = backend.quantize(space.fp32())
    try:
        population = None if samples is None else read_population(study)
        if samples is not None and population is not None:
            scores = limited(partial(_scores, for_fp32(samples), fp32, population))
            indices = population.order.indices
            same = len(scores) == population.samples and _mostly_same(
                scores, population.baseline[indices], population.scale
            )
            value = float(scores.sum() / len(scores))
        else:
            found = limited(partial(for_fp32(evaluate), fp32))
            value = as_metric(found, higher_is_better=better)
            same = _is_same(value, baseline.value)
    except Exception as error:
        raise BaselineError(
            f"The FP32 model could not be evaluated: {type(error).__name__}: {error}"
        ) from error
    if not same:
        return (
            f"The FP32 model has the metric {value:.6g} with this evaluation, but "
            f"{baseline.value:.6g} in the study"
            + ("." if not _is_same(value, baseline.value) else ", on other samples.")
        )
    trial = best_met_trial(study, criterion) or closest_trial(study, criterion)
    if trial is None:
        return None
    calibrate(space.config_from_params(trial.params))
    model = rebuild(trial, backend=backend, space=space)
    if samples is not None and population is not None:
        # In the order of the trial: what a model gives may depend on the batch.
        scores[population.order.indices] = limited(partial(_scores, samples, model, population))
        value = float(scores.sum() / len(scores))
    else:
        value = as_metric(limited(partial(evaluate, model)), higher_is_better=better)
    if _is_same(value, trial.values[0]):
        return None
    return (
        f"The model of trial {trial.number} has the metric {value:.6g} with this evaluation, "
        f"but {trial.values[0]:.6g} in the study."
    )


def _scores(
    evaluation: SampleEvaluation, model: NativeModel, population: Population
) -> NDArray[np.float64]:
    """The scores of all samples, in the order in which candidates are evaluated."""
    batches = evaluation.scores(model, population.order.indices.copy())
    return np.concatenate([np.array(batch) for batch in batches])


def _is_same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)


def _mostly_same(one: Any, other: Any, width: float) -> bool:
    """Whether scores are the same, but for a few: other processors round in other ways."""
    return bool((np.abs(one - other) > _SAME_SCORE * width).mean() <= _FEW)
