"""Choose the batches for models whose outputs depend on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_quant._common.user_warnings import warn_user
from optuna_quant._optuna import set_study_system_attr
from optuna_quant._optuna import study_system_attrs
from optuna_quant.evaluation.labelled import DataEvaluation
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.errors import ChangedEvaluationError


if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from optuna_quant.backends.base import Model
    from optuna_quant.space.space import TuningSpace


# So many samples are run alone and together, to see whether they are independent.
_TRIED = 4
# Kernels for other shapes sum in another order; by this part of the largest value at most.
_BY_KERNEL = 1e-2


@dataclass(frozen=True)
class Batches:
    """The batches in which models with dynamic quantization are evaluated.

    Args:
        size:
            How many samples are run at once; :obj:`None` if a function of the user's decides.
    """

    size: int | None

    def __str__(self) -> str:
        why = "the ranges of dynamic quantization are those of a batch"
        if self.size == 1:
            return f"evaluated one sample at a time, because {why}"
        if self.size is None:
            return f"the metric holds for the batches that evaluate runs, because {why}"
        return (
            f"the metric holds for batches of {self.size} in the order of the evaluation, "
            f"because {why}"
        )


def batches_of(evaluation: object, space: TuningSpace, fp32: Model | None) -> Batches | None:
    """How models with dynamic quantization are evaluated.

    Args:
        evaluation:
            Gives the metric of a model.
        space:
            The tuning space.
        fp32:
            The FP32 model; a function of the user's does not need it.

    Returns:
        The batches; :obj:`None` if no model of the space has dynamic quantization.
    """
    if not any(option.mode == "dynamic" for t in space.tunables for option in t.options):
        return None
    if not isinstance(evaluation, DataEvaluation) or fp32 is None:
        return Batches(None)
    return Batches(evaluation.runs.batch_size_for(fp32, depends_on_batch=True))


def warn_of_batches(evaluation: object, batches: Batches | None) -> None:
    """Warn if the metrics of dynamic models will hold for batches of one size and order only.

    Args:
        evaluation:
            Gives the metric of a model.
        batches:
            How models with dynamic quantization are evaluated; :obj:`None` if there are none.
    """
    if not isinstance(evaluation, DataEvaluation):
        return
    if batches is not None and batches.size is not None and batches.size > 1:
        if evaluation.dynamic_batch_size == batches.size:
            cure = "Leave batch_size out to evaluate these models one sample at a time."
        else:
            cure = "It is the size with which the model was exported."
        warn_user(
            f"For a model with dynamic quantization {batches}: other batches, or the same "
            f"samples in another order, give other scores. {cure}"
        )


class SampleDependence:
    """Callback that warns if the FP32 model's outputs depend on the batch, or on chance.

    It is run on a few samples, alone and together, once: after the first trial, by when it has
    been evaluated, so that what is wrong with that is known. If it tells them apart, so do all
    models.

    Args:
        evaluation:
            Gives the metric of a model.
        fp32:
            Builds the FP32 model.
    """

    def __init__(self, evaluation: DataEvaluation, fp32: Callable[[], Model]) -> None:
        self._evaluation = evaluation
        self._fp32 = fp32
        self._is_done = False

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Look, if that has not been done."""
        if not self._is_done:
            self._is_done = True
            _warn_of_dependence(self._evaluation, self._fp32())


def _warn_of_dependence(evaluation: DataEvaluation, fp32: Model) -> None:
    size = evaluation.runs.batch_size_for(fp32)
    if _is_independent(evaluation, fp32, size):
        return
    if _is_independent(evaluation, fp32, 1):  # Alone, it gives the same each time.
        said = (
            "The FP32 model's output for a sample depends on the rest of its batch. So the "
            f"metric holds for batches of {size} in the order of the evaluation only; use "
            "batch_size=1 if the model is used on one sample at a time."
        )
    else:
        said = (
            "The FP32 model's outputs for the same samples change from run to run, so metrics "
            "are a matter of luck: is a layer such as Dropout in training mode, or are samples "
            "augmented at random when they are read?"
        )
    warn_user(said)


def check_batches(study: optuna.Study, batches: Batches | None) -> None:
    """Refuse a study whose dynamic models were evaluated in other batches.

    Args:
        study:
            The study.
        batches:
            How they are evaluated here; :obj:`None` if there are none.

    Raises:
        ChangedEvaluationError:
            If the study was started with another batch size.
    """
    if batches is None or batches.size is None:
        return
    known = study_system_attrs(study).get(record.DYNAMIC_BATCH_SIZE)
    if known is None and get_baseline(study) is None:
        set_study_system_attr(study, record.DYNAMIC_BATCH_SIZE, batches.size)
        return
    if known == batches.size:
        return
    then = "larger batches, by an earlier version" if known is None else f"batches of {known}"
    raise ChangedEvaluationError(
        f"In the study {study.study_name!r} models with dynamic quantization were evaluated in "
        f"{then}, but here in batches of {batches.size}; their scores depend on it. Use the "
        "same batch_size, or another study name or storage."
    )


def _is_independent(evaluation: DataEvaluation, model: Model, size: int) -> bool:
    """Whether a model gives samples the same in batches of a size as alone.

    As far as is known: if it cannot be run on one sample, its evaluation will say what is wrong.
    """
    count = min(_TRIED, evaluation.samples)
    try:
        some, alone = (evaluation.runs.first_outputs(model, count, size=n) for n in (size, 1))
    except Exception:
        return True
    return all(_is_close(one, other) for one, other in zip(some, alone, strict=True))


def _is_close(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fc":
        return True  # The nearest of two classes may change by rounding alone.
    largest = float(np.abs(one[np.isfinite(one)]).max(initial=0.0))
    return bool(np.allclose(one, other, rtol=0.0, atol=_BY_KERNEL * largest, equal_nan=True))
