"""Start a study from the results of an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import re
from typing import TYPE_CHECKING

from optuna.logging import get_logger

from optuna_quant.evaluation.same_evaluation import EVALUATION
from optuna_quant.evaluation.signature import FUNCTION
from optuna_quant.evaluation.signature import METRIC_FUNCTION
from optuna_quant.evaluation.signature import UNKNOWN
from optuna_quant.samplers._models.earlier_study import study_prior
from optuna_quant.samplers._models.prior import StudyPrior
from optuna_quant.samplers._models.prior import check_not_started
from optuna_quant.samplers._models.prior import check_started_from
from optuna_quant.samplers._models.prior import keep_prior
from optuna_quant.samplers._models.prior import kept_prior
from optuna_quant.study.compatibility import SIGNATURE
from optuna_quant.tuning.earlier_study import find_study
from optuna_quant.tuning.earlier_study import name_of
from optuna_quant.tuning.earlier_study import trial_of


if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

    from optuna_quant.space.space import TuningSpace
    from optuna_quant.tuning.earlier_study import FromStudy


_logger = get_logger(__name__)

_METRIC = "metric"
_ARITHMETIC = "arithmetic"


@dataclass(frozen=True)
class WarmStart:
    """What a study starts from.

    Args:
        prior:
            What it takes over; :obj:`None` if it begins from nothing, or has it already.
        source:
            The earlier study; :obj:`None` in the same cases.
    """

    prior: StudyPrior | None = None
    source: optuna.Study | None = None

    def keep(self, study: optuna.Study) -> None:
        """Write it into the study, if that does not hold it yet."""
        keep_prior(study, self.prior)


def warm_start(
    study: optuna.Study,
    from_study: FromStudy | None,
    *,
    storage: BaseStorage,
    models: Mapping[str, str],
    evaluation: Mapping[str, str],
    space: TuningSpace,
) -> WarmStart:
    """Find what a study begins from; a study that was started so has it, and needs no other.

    Args:
        study:
            The new study.
        from_study:
            What stands for the earlier one.
        storage:
            The storage of the new one.
        models:
            What the models depend on, by part, see
            :func:`optuna_quant.study.compatibility.signature_of_models`.
        evaluation:
            What the metrics rest on, see
            :func:`optuna_quant.evaluation.signature.signature_of`.
        space:
            The tuning space as the backend gives it.

    Raises:
        ValueError:
            If the earlier study is not there, cannot be used, or is another one than that from
            which the study was started.
    """
    if from_study is None:
        return WarmStart()
    kept = kept_prior(study)
    name = name_of(from_study)
    if kept is not None:
        if name is not None:
            check_started_from(study, kept, name)
        return WarmStart()
    check_not_started(study, name or "given now")
    source = find_study(from_study, storage, own=study.study_name)
    known = _without_arithmetic(source.user_attrs.get(SIGNATURE, {}))
    evaluated: Mapping[str, str] = source.user_attrs.get(EVALUATION, {})
    prior = study_prior(
        source,
        same_model=bool(known) and known == _without_arithmetic(models),
        same_evaluation=evaluated == evaluation
        and not _is_unknown(evaluation)
        and source.user_attrs.get(SIGNATURE, {}).get(_ARITHMETIC) == models.get(_ARITHMETIC),
        same_metric=_same_metric(evaluated, evaluation),
        prefix=space.prefix,
        answer=trial_of(from_study),
    )
    prior.check(space)
    keep_prior(study, prior)
    _logger.info(f"The study {study.study_name!r} has {prior.shown(space)}.")
    return WarmStart(prior, source)


def shown_start(study: optuna.Study, space: TuningSpace) -> list[str]:
    """What a study was started from, in a line; no line if from nothing."""
    kept = kept_prior(study)
    return [] if kept is None else [kept.shown(space)]


def _without_arithmetic(signature: Mapping[str, str]) -> dict[str, str]:
    """Metrics differ a little between kinds of processors; sensitivities hardly do."""
    return {part: text for part, text in signature.items() if part != _ARITHMETIC}


def _same_metric(known: Mapping[str, str], given: Mapping[str, str]) -> bool:
    """Whether losses have the same meaning, as far as the strings tell."""
    if FUNCTION in known and FUNCTION in given:
        return _name(known[FUNCTION]) == _name(given[FUNCTION])
    if known.get(_METRIC) is None or known.get(_METRIC) != given.get(_METRIC):
        return False
    return _name(known.get(METRIC_FUNCTION, "")) == _name(given.get(METRIC_FUNCTION, ""))


def _name(function: str) -> str:
    """The name of a function, without the hash of its code, which may have been edited."""
    return re.sub(r" \S+$", "", function)


def _is_unknown(evaluation: Mapping[str, str]) -> bool:
    return any(text.endswith(UNKNOWN) for text in evaluation.values())
