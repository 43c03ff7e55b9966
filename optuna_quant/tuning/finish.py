"""From a study that has stopped to the result: measured, evaluated again, and written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import optuna

from optuna_quant._common.steps import doing
from optuna_quant.callbacks import Stop
from optuna_quant.callbacks.publishing import publishers
from optuna_quant.evaluation.metrics.criterion import note_of
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.tuning.conclude import conclude
from optuna_quant.tuning.direction import ask_for_direction
from optuna_quant.tuning.errors import OutputError
from optuna_quant.tuning.finalists import measure_finalists
from optuna_quant.tuning.findings import keep_findings
from optuna_quant.tuning.holdout import with_holdout
from optuna_quant.tuning.measured_once import measured_once
from optuna_quant.tuning.output import SaveBest
from optuna_quant.tuning.result import TuningResult
from optuna_quant.tuning.second_evaluation import with_second_evaluation


if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.trial import FrozenTrial

    from optuna_quant.tuning.setup import TuningSetup


def finish(
    setup: TuningSetup,
    study: optuna.Study,
    stop: Stop,
    objective: QuantObjective,
    *,
    callbacks: Sequence[Callable[[optuna.Study, FrozenTrial], None]],
) -> TuningResult:
    """Choose the answer, check it, and write its model.

    Args:
        setup:
            The search.
        study:
            The study.
        stop:
            Why it stopped.
        objective:
            What has evaluated models.
        callbacks:
            The user's callbacks.

    Raises:
        OutputError:
            If the model cannot be written.
        ValueError:
            If the model that was found cannot be built again.
    """
    measure = partial(
        measured_once,
        study,
        measure=partial(measure_finalists, backend=setup.backend, space=setup.space),
    )
    with doing("Measuring the answer beside FP32"):
        result = conclude(
            TuningResult,
            study,
            stop,
            setup.policy,
            backend=setup.backend,
            space=setup.space,
            measure=measure if setup.measure_gain else None,
            left_out=setup.left_out,
        )
    result = replace(result, note=note_of(setup.measure), call=setup.call)
    ask_for_direction(result, setup.measure)
    if result.depends_on_batch:
        result = replace(result, batches=setup.batches)
    if setup.verify:
        limited = partial(objective.limited, study, what="The second evaluation of the answer")
        with doing("Evaluating the answer a second time"):
            result = with_second_evaluation(result, setup.measure, limited=limited)
    if setup.saver is not None and result.trial is not None and not result.is_reproducible:
        setup.saver.discard(result.trial)
    for publisher in publishers(callbacks):
        publisher.finish(study)
    unwritten = _write(setup.saver, result)
    if setup.holdout is not None:
        limited = partial(objective.limited, study, what="The evaluation of the hold-out set")
        with doing("Evaluating the hold-out set"):
            result = with_holdout(result, setup.holdout, limited=limited)
    keep_findings(result)
    if unwritten is not None:
        raise OutputError(unwritten, result)
    return result


def _write(saver: SaveBest | None, result: TuningResult) -> str | None:
    """Write the model that was found; why it could not be written, if so."""
    if saver is None or not result.met or result.trial is None:
        return None
    try:
        saver.write(result.trial)
    except OSError as error:
        return f"The output {str(saver.path)!r} could not be written: {error}"
    return None
