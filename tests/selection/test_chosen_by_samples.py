"""Among how many models an answer was chosen, and what the summary says of it."""

from __future__ import annotations

from collections.abc import Mapping

from fake_backend import FakeBackend
import optuna
import pytest
from sample_models import DAMAGE
from sample_models import SampleScores

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers import RandomQuantSampler
from optuna_quant.selection.chosen_by_samples import models_compared
from optuna_quant.selection.chosen_by_samples import shown_doubt
from optuna_quant.selection.chosen_by_samples import shown_interval
from optuna_quant.sequential import EarlyStopping
from optuna_quant.sequential.interval import loss_interval
from optuna_quant.study import record
from optuna_quant.tuning.conclude import conclude
from optuna_quant.tuning.result import TuningResult


RELATIVE = AccuracyCriterion(tolerable_loss=0.01)
ABSOLUTE = AccuracyCriterion(criterion="absolute", tolerable_loss=0.05)


def searched(
    criterion: AccuracyCriterion, damage: Mapping[str, float] = DAMAGE
) -> tuple[TuningResult, SampleScores]:
    """A search on the samples of fake models; what is done to op2 changes nothing."""
    backend = FakeBackend(damage, duplicates=["op2"])
    space = backend.tuning_space()
    scores = SampleScores(damage)
    policy = ExitPolicy(criterion, timeout=None, max_trials=60)
    study = optuna.create_study(direction="maximize", sampler=BasicQuantSampler(space))
    objective = QuantObjective(backend, space, scores, criterion, stopping=EarlyStopping())
    study.optimize(objective, callbacks=[policy])
    stop = policy.decide(study)
    assert stop is not None

    def measure(found: object) -> None:
        raise AssertionError

    result = conclude(
        TuningResult,
        study,
        stop,
        policy,
        backend=backend,
        space=space,
        measure=measure,  # type: ignore[arg-type]
    )
    return result, scores


def test_models_count_once_and_those_seen_in_part_count() -> None:
    result, scores = searched(ABSOLUTE)
    quantized = {name for name in scores.seen if not name.startswith("model:False")}
    states = {t.state.name for t in result.study.trials}
    assert {"COMPLETE", "PRUNED"} <= states
    reused = [t for t in result.study.trials if record.REUSED_FROM in t.user_attrs]
    assert reused
    assert result.models_compared == len(quantized) == models_compared(result.study)
    assert 1 < result.models_compared < len(result.study.trials) - 1


def test_interval_is_that_of_one_in_so_many() -> None:
    result, scores = searched(ABSOLUTE)
    assert result.config is not None
    fp32 = result.space.fp32()
    assert result.loss_interval == loss_interval(
        scores.scores_of(result.config),
        scores.scores_of(fp32),
        bounds=(0.0, 1.0),
        higher_is_better=True,
        relative=False,
        confidence=1 - 0.05 / result.models_compared,
    )
    low, high = result.loss_interval
    shown = (
        f"(95% confidence, corrected for the choice among {result.models_compared} models: "
        f"{low:.4g} to {high:.4g}), criterion: "
    )
    assert shown in str(result)
    assert high > ABSOLUTE.tolerable_loss
    doubt = f"met on these 1000 samples; on others a loss up to {high:.4g} is not ruled out"
    assert doubt in str(result).splitlines()


def test_what_is_not_met_needs_no_doubt() -> None:
    result, _ = searched(ABSOLUTE, {"op0": 0.2, "op1": 0.3})
    assert not result.met
    assert "met on these" not in str(result)


def test_trials_without_ops_do_not_count() -> None:
    study = optuna.create_study(direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert models_compared(study) == 0


def test_a_study_of_another_objective_counts_its_trials() -> None:
    backend = FakeBackend({"a": 0.1, "b": 0.2})
    space = backend.tuning_space()
    sampler = RandomQuantSampler(space, fallback=True, seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: -len(space.suggest(trial).quantized_ops), n_trials=3)
    assert models_compared(study) == len({str(t.params) for t in study.trials[1:]}) == 2


@pytest.mark.parametrize(
    ("models", "text"),
    [
        (1, "95% confidence: -0.5% to 2%"),
        (2, "95% confidence, corrected for the choice among 2 models: -0.5% to 2%"),
    ],
)
def test_words_of_an_interval(models: int, text: str) -> None:
    assert shown_interval((-0.005, 0.02), RELATIVE, models=models) == text


def test_words_of_doubt() -> None:
    assert shown_doubt((-0.1, 0.01), RELATIVE, samples=7) is None
    assert (
        shown_doubt((-0.1, 0.011), RELATIVE, samples=7)
        == "met on these 7 samples; on others a loss up to 1.1% is not ruled out"
    )
