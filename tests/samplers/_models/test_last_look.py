"""A search that has found little or nothing tries the ops that alone would save much."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

from costed_backend import CostedBackend

from optuna_quant import AccuracyCriterion
from optuna_quant import TuningCriterion
from optuna_quant import TuningResult
from optuna_quant import tune
from optuna_quant.backends.base import SensitivityFactory
from optuna_quant.backends.base import SensitivityKind


# The sensitivities say that nearly all of the error is that of "b", which in truth loses nothing.
LOSSES = {"a": 0.3, "b": 0.0005, "c": 0.2, "d": 0.02, "e": 0.03}
WRONG = {"a": 0.05, "b": 0.5, "c": 0.05, "d": 0.001, "e": 0.001}
# In FP32 each of the five ops takes 1 ms: each saves 18% alone.
MILLISECONDS = 0.1


class MisleadingBackend(CostedBackend):
    """Its sensitivities are wrong about one op."""

    def sensitivities(self) -> Mapping[SensitivityKind, SensitivityFactory]:
        return {SensitivityKind.BEST: SensitivityFactory(lambda outputs: _wrong)}


def _wrong(config: object, ops: Sequence[str]) -> Mapping[str, float]:
    return {op: WRONG.get(op[0], 0.5) for op in ops}


def search(losses: Mapping[str, float]) -> TuningResult:
    return tune(
        backend=MisleadingBackend(losses, dict.fromkeys(losses, MILLISECONDS)),
        evaluate=lambda model: model.accuracy,
        accuracy_criterion=AccuracyCriterion(criterion="absolute", tolerable_loss=0.01),
        tuning_criterion=TuningCriterion(objective="latency"),
        measure_gain=False,
        verify=False,
    )


def test_the_op_that_sensitivities_are_wrong_about_is_found() -> None:
    result = search(LOSSES)
    assert result.met
    assert set(result.config.quantized_ops) == {"b"}
    assert result.full_evaluations <= 14


def test_it_ends_where_no_op_may_be_quantized() -> None:
    result = search(dict.fromkeys(LOSSES, 0.3))
    assert not result.met
    alone = [
        trial
        for trial in result.study.trials
        if len(result.space.config_from_params(trial.params).quantized_ops) == 1
    ]
    assert len(alone) == len(LOSSES)  # Each op once.
