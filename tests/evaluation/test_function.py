"""A function of the user's that gives the score of each sample."""

from __future__ import annotations

from collections.abc import Callable
import functools
import math
from pathlib import Path
import threading
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
from numpy.typing import NDArray
import onnx_models
import optuna
import pytest
from sample_models import CRITERION
from sample_models import DAMAGE
from sample_models import STOPPING
from sample_models import SampleScores
from sample_models import backend_of
from sample_models import search

from optuna_quant.cli.parser import main
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.function import FunctionEvaluation
from optuna_quant.evaluation.given_scores import GivenScores
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.study import record
from optuna_quant.study.errors import BaselineError
from optuna_quant.study.errors import ChangedEvaluationError
from optuna_quant.study.evaluation_cost import full_evaluations
from optuna_quant.study.population_record import read_population
from optuna_quant.study.sample_record import read_scores
from optuna_quant.study.trial_view import TrialView
from optuna_quant.tuning.api import tune
from optuna_quant.tuning.options.criterion import TuningCriterion
from optuna_quant.tuning.result import TuningResult


SAMPLES = 1000
SCORES = SampleScores(DAMAGE, samples=SAMPLES)
FP32 = FakeBackend(DAMAGE).quantize(FakeBackend(DAMAGE).tuning_space().fp32())


class Asked:
    """Functions that give scores, and count what they are asked for."""

    def __init__(
        self, *, kind: Callable[[NDArray[np.bool_]], Any] = np.asarray, margins: bool = False
    ) -> None:
        self._kind = kind
        self._margins = np.random.default_rng(1).random(SAMPLES) if margins else None
        self._lock = threading.Lock()
        self.calls: list[tuple[str, int]] = []

    def _see(self, model: FakeModel, count: int) -> NDArray[np.bool_]:
        with self._lock:
            self.calls.append((model.fingerprint, count))
        return SCORES.scores_of(model.config).astype(bool)

    def number(self, model: FakeModel) -> float:
        return float(self._see(model, SAMPLES).mean())

    def array(self, model: FakeModel) -> Any:
        return self._kind(self._see(model, SAMPLES))

    def parts(self, model: FakeModel, indices: NDArray[np.intp] | None = None) -> Any:
        chosen = np.arange(SAMPLES) if indices is None else indices
        scores = self._kind(self._see(model, len(chosen))[chosen])
        return scores if self._margins is None else (scores, self._margins[chosen])

    @property
    def evaluated(self) -> int:
        return sum(count for _, count in self.calls)


def graded(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scores of more than right and wrong, with the same order."""
    return np.where(right, 1.0, 0.0) - 1e-3 * (np.arange(len(right)) % 3) * right


def tune_fake(evaluate: Any, **options: Any) -> TuningResult:
    given: dict[str, Any] = {
        "backend": FakeBackend(DAMAGE),
        "accuracy_criterion": CRITERION,
        "tuning_criterion": TuningCriterion(strategy="basic"),
    }
    return tune(evaluate=evaluate, **given | options)


# What a function is asked for.


def test_a_parameter_named_indices_or_samples_makes_it_ask_for_some() -> None:
    def keyword(model: Any, *, indices: Any = None) -> Any: ...
    def named(model: Any, samples: Any) -> Any: ...
    def third(model: Any, verbose: bool = False, indices: Any = None) -> Any: ...
    def positional(model: Any, indices: Any, /) -> Any: ...

    functions = [keyword, named, third, positional, Asked().parts]
    for function in [*functions, functools.partial(third, verbose=True)]:
        assert FunctionEvaluation(function).in_parts


def test_other_parameters_are_the_function_s_own() -> None:
    def plain(model: Any) -> Any: ...
    def first(samples: Any) -> Any: ...
    def amount(model: Any, samples: int = 500) -> Any: ...
    def anything(model: Any, *indices: Any, **samples: Any) -> Any: ...

    for function in (plain, first, amount, anything, float, Asked().array):
        assert not FunctionEvaluation(function).in_parts


@pytest.mark.parametrize("style", ["keyword", "positional"])
def test_indices_are_given_in_batches_and_none_for_all(style: str) -> None:
    seen: list[Any] = []

    def keyword(model: Any, *, samples: Any) -> Any:
        seen.append(samples)
        return np.zeros(10, bool) if samples is None else samples > 4

    def positional(model: Any, indices: Any, /) -> Any:
        return keyword(model, samples=indices)

    function = keyword if style == "keyword" else positional
    evaluation = FunctionEvaluation(function, batch_size=3)
    evaluation.measure(None)
    found = list(evaluation.scores(None, np.array([7, 1, 9, 4])))
    assert seen[0] is None
    assert [some.tolist() for some in seen[1:]] == [[7, 1, 9], [4]]
    assert [some.tolist() for some in found] == [[1, 0, 1], [0]]


def test_a_function_may_write_into_its_indices() -> None:
    def evaluate(model: Any, indices: Any = None) -> Any:
        chosen = np.arange(10) if indices is None else indices
        found = chosen / 10
        chosen[:] = 0
        return found

    evaluation = FunctionEvaluation(evaluate, metric_bounds=(0, 1))
    indices = np.array([3, 8])
    assert np.concatenate(list(evaluation.scores(None, indices))).tolist() == [0.3, 0.8]
    assert indices.tolist() == [3, 8]


def test_it_is_a_sample_evaluation() -> None:
    evaluation = FunctionEvaluation(Asked().parts)
    assert isinstance(evaluation, SampleEvaluation)
    assert isinstance(GivenScores(np.zeros(3), None, True, True), SampleEvaluation)
    assert (evaluation.samples, evaluation.bounds) == (0, None)
    evaluation.see_fp32(FP32)
    assert (evaluation.samples, evaluation.bounds) == (SAMPLES, (0.0, 1.0))
    assert evaluation(FP32) == pytest.approx(SCORES.metric(FP32.config))


def test_it_gets_the_runtimes_own_object() -> None:
    class Model:
        def native(self) -> str:
            return "its session"

    evaluation = FunctionEvaluation(lambda got: got)
    assert evaluation("no model") == "no model"
    assert evaluation(Model()) == "its session"


# Bounds and margins.


def test_bounds_are_those_of_booleans_or_given() -> None:
    def bounds(scores: Any, **options: Any) -> Any:
        evaluation = FunctionEvaluation(lambda model: scores, **options)
        evaluation.see_fp32(None)
        return evaluation.bounds

    assert bounds(np.array([True, False])) == (0, 1)
    assert bounds([True, True]) == (0, 1)
    assert bounds(np.array([1.0, 0.0])) is None
    assert bounds(np.array([1, 0])) is None
    assert bounds(np.array([True, False]), metric_bounds=(0, 2)) == (0, 2)
    # Nothing can be decided where the best score is not known.
    assert bounds(np.array([1.0, 5.0]), metric_bounds=(0, math.inf)) is None
    errors = {"metric_bounds": (0, math.inf), "higher_is_better": False}
    assert bounds(np.array([1.0, 5.0]), **errors) == (0, math.inf)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric_bounds": (1, 0)}, ValueError, "'evaluate' must be two numbers"),
        ({"metric_bounds": 1}, ValueError, "'evaluate' must be two numbers"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"batch_size": 1.5}, TypeError, "batch_size must be an integer"),
    ],
)
def test_wrong_options_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        FunctionEvaluation(Asked().parts, **options)


def margins_of(returned: Any, **options: Any) -> Any:
    evaluation = FunctionEvaluation(lambda model: returned, **options)
    found = evaluation.see_fp32(None)
    ((_, margins),) = found.scores_and_margins(None, np.array([2, 0, 1]))
    return None if margins is None else margins.tolist()


def test_samples_that_score_worst_are_the_hardest() -> None:
    scores = np.array([0.1, 0.9, 0.5])
    assert margins_of(scores, metric_bounds=(0, 1)) == [0.5, 0.1, 0.9]
    worst_first = margins_of(scores, metric_bounds=(0, 1), higher_is_better=False)
    assert worst_first == [-0.5, -0.1, -0.9]


def test_right_and_wrong_tell_nothing_of_difficulty() -> None:
    assert margins_of(np.array([True, False, True])) is None
    assert margins_of(np.array([0.2, 0.8, 0.2]), metric_bounds=(0, 1)) is None


def test_margins_that_are_given_are_taken() -> None:
    assert margins_of((np.array([True, False, True]), [4, 5, 6])) == [6, 4, 5]


# What is refused.


def test_float32_rounding_is_no_score_out_of_bounds() -> None:
    scores = np.array([np.nextafter(np.float32(1), np.float32(2)), 0.5], dtype=np.float32)
    found = FunctionEvaluation(lambda model: scores, metric_bounds=(0, 1)).measure(None)
    assert found.values.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.5, math.nan, 0.2], "returned NaN as the score of sample 1"),
        ([0.5, 0.5, -math.inf], "returned -inf as the score of sample 2"),
        ([0.5, 0.5, 1.5], r"returned 1.5 as the score of sample 2, .*between 0 and 1"),
    ],
)
def test_wrong_scores_are_named_with_their_sample(scores: list[float], message: str) -> None:
    evaluation = FunctionEvaluation(lambda model: scores, metric_bounds=(0, 1))
    with pytest.raises(ValueError, match=message):
        evaluation.measure(None)


def test_the_sample_is_named_that_was_asked_for() -> None:
    def evaluate(model: Any, indices: Any = None) -> Any:
        return np.where(indices == 17, math.nan, 0.5)

    with pytest.raises(ValueError, match="NaN as the score of sample 17"):
        list(FunctionEvaluation(evaluate).scores(None, [3, 17]))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros(10), np.zeros(12), "returned 12 scores here, and 10 scores before"),
        (0.5, np.zeros(12), "returned 12 scores here, and one number before"),
        (np.zeros(10), 0.5, "returned one number here, and 10 scores before"),
    ],
)
def test_each_call_must_give_the_same(first: Any, second: Any, message: str) -> None:
    returned = iter([first, second])
    evaluation = FunctionEvaluation(lambda model: next(returned))
    evaluation.see_fp32(None)
    with pytest.raises(ValueError, match=message):
        evaluation.measure(None)


def test_a_function_that_ignores_its_indices_is_refused() -> None:
    def everything(model: Any, indices: Any = None) -> Any:
        return np.zeros(100, bool)

    with pytest.raises(
        ValueError, match=r"the scores of 16 samples \(indices\), but returned 100"
    ):
        FunctionEvaluation(everything).see_fp32(None)

    def first_ones(model: Any, indices: Any = None) -> Any:
        scores = np.arange(100) < 90
        return scores if indices is None else scores[: len(indices)]

    with pytest.raises(ValueError, match="other scores when it is asked for some of the samples"):
        FunctionEvaluation(first_ones).see_fp32(None)

    def in_its_own_order(model: Any, indices: Any = None) -> Any:
        scores = np.linspace(0, 1, 100)
        return scores if indices is None else scores[np.sort(indices)]

    with pytest.raises(ValueError, match="in the order of the samples that it is asked for"):
        FunctionEvaluation(in_its_own_order).see_fp32(None)


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 16, 17])
def test_it_is_tried_on_however_few_samples(samples: int) -> None:
    asked: list[int] = []

    def evaluate(model: Any, indices: Any = None) -> Any:
        scores = np.linspace(0, 1, samples)
        if indices is not None:
            asked.extend(indices.tolist())
        return scores if indices is None else scores[indices]

    found = FunctionEvaluation(evaluate).see_fp32(None)
    assert found.samples == samples
    assert len(set(asked)) == len(asked) and min(samples - 1, 1) <= len(asked) <= 16


def test_what_takes_indices_must_give_scores() -> None:
    def number(model: Any, indices: Any = None) -> Any:
        return 0.5

    with pytest.raises(
        BaselineError, match=r"returned 0\.5, but it must return one score for each"
    ):
        tune_fake(number)


def test_bounds_are_of_scores_not_of_one_number() -> None:
    with pytest.raises(BaselineError, match="metric_bounds=.*but evaluate returns one number"):
        tune_fake(Asked().number, metric_bounds=(0, 1))


def test_early_stopping_needs_a_function_that_takes_indices() -> None:
    for function in (Asked().number, Asked().array):
        with pytest.raises(ValueError, match="'exact' needs data .*no parameter named indices"):
            tune_fake(function, early_stopping="exact")
    assert tune_fake(Asked().parts, early_stopping="exact").met


def test_a_candidate_with_other_scores_fails_alone() -> None:
    def evaluate(model: FakeModel) -> Any:
        return SCORES.scores_of(model.config)[: SAMPLES - len(model.config.quantized_ops)] > 0

    result = tune_fake(evaluate, tuning_criterion=TuningCriterion(max_trials=3))
    failures = [t.user_attrs.get(record.FAILURE, "") for t in result.study.trials[1:]]
    assert failures and all("scores here, and 1000 scores before" in text for text in failures)


# Searches.


def test_a_number_is_what_it_was() -> None:
    asked = Asked()
    result = tune_fake(asked.number)
    assert result.met and result.loss_interval is None
    assert read_population(result.study) is None
    assert all(record.EVIDENCE not in trial.user_attrs for trial in result.study.trials)


@pytest.mark.parametrize("margins", [False, True])
def test_what_takes_indices_is_evaluated_until_the_decision(margins: bool) -> None:
    whole, asked = Asked(), Asked(margins=margins)
    full = tune_fake(whole.number, verify=False)
    result = tune_fake(asked.parts, verify=False)
    assert full.met and result.met
    assert full_evaluations(result.study) < full_evaluations(full.study) / 2
    # What is said to have been evaluated was; 16 more are to see that it heeds its indices, and
    # what is given up does not use all of its last batch.
    claimed = full_evaluations(result.study) * SAMPLES
    assert claimed <= asked.evaluated <= claimed + 16 + 64 * len(result.study.trials)
    assert result.loss_interval is not None
    assert result.metric == pytest.approx(SCORES.metric(result.config))  # type: ignore[arg-type]


def test_scores_of_all_samples_are_kept() -> None:
    asked = Asked()
    result = tune_fake(asked.array)
    assert result.met and result.trial is not None and result.config is not None
    population = read_population(result.study)
    assert population is not None and not population.in_parts
    assert result.loss_interval is not None
    assert "95% confidence, corrected for the choice among" in str(result)
    in_order = np.empty(SAMPLES)
    in_order[population.order.indices] = read_scores(result.trial.system_attrs)
    assert in_order.tolist() == SCORES.scores_of(result.config).tolist()
    # Nothing is evaluated in parts, and nothing twice but the answer.
    assert {count for _, count in asked.calls} == {SAMPLES}
    assert full_evaluations(result.study) == len(asked.calls)
    assert all(t.state.name == "COMPLETE" for t in result.study.trials)


def test_kinds_of_arrays_give_the_same() -> None:
    def found(kind: Callable[[Any], Any], **options: Any) -> Any:
        result = tune_fake(Asked(kind=kind).parts, **options)
        return result.metric, result.loss_interval, len(result.study.trials)

    expected = found(np.asarray)
    assert found(list) == expected
    assert found(lambda right: right.astype(np.float32), metric_bounds=(0, 1)) == expected
    assert found(lambda right: right.astype(int).tolist(), metric_bounds=(0, 1)) == expected


def test_errors_are_given_up_once_they_certainly_fail() -> None:
    asked = Asked(kind=lambda right: np.where(right, 0.01, 1.0))
    result = tune_fake(
        asked.parts,
        metric_bounds=(0, math.inf),
        accuracy_criterion=AccuracyCriterion(
            higher_is_better=False, criterion="absolute", tolerable_loss=0.05
        ),
    )
    assert result.met
    assert any(trial.state.name == "PRUNED" for trial in result.study.trials)
    assert result.loss_interval is None


def test_without_bounds_all_is_evaluated_and_said(caplog: pytest.LogCaptureFixture) -> None:
    optuna.logging.enable_propagation()
    try:
        asked = Asked(kind=lambda right: right.astype(float))
        result = tune_fake(asked.parts)
    finally:
        optuna.logging.disable_propagation()
    assert "Every configuration is evaluated on all samples" in caplog.text
    assert "give metric_bounds=(lowest, highest)" in caplog.text
    assert result.met and result.loss_interval is None
    assert {count for _, count in asked.calls} == {SAMPLES, 16}
    assert full_evaluations(result.study) == len(asked.calls) - 1


def test_few_samples_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    optuna.logging.enable_propagation()
    try:
        tune_fake(lambda model: SCORES.scores_of(model.config)[:50] > 0)
    finally:
        optuna.logging.disable_propagation()
    assert "There are only 50 evaluation samples" in caplog.text


def test_early_stopping_off_keeps_nothing() -> None:
    asked = Asked()
    result = tune_fake(asked.parts, early_stopping="off", verify=False)
    assert result.met and read_population(result.study) is None
    assert full_evaluations(result.study) == len(asked.calls) - 1  # One was of 16 samples.


@pytest.mark.parametrize("kind", ["array", "parts"])
def test_the_holdout_function_has_an_interval(kind: str) -> None:
    result = tune_fake(getattr(Asked(), kind), holdout=getattr(Asked(), kind))
    assert result.holdout is not None
    assert result.holdout.samples == SAMPLES
    assert result.holdout.loss_interval is not None
    assert result.holdout.metric == result.metric


def test_a_holdout_function_that_gives_numbers_has_none() -> None:
    found = tune_fake(Asked().array, holdout=Asked().number).holdout
    assert found is not None and found.loss_interval is None and found.samples is None


# The second evaluation.


@pytest.mark.parametrize("graded_scores", [True, False])
@pytest.mark.parametrize("margins", [True, False])
def test_a_few_samples_tell_whether_it_is_reproducible(graded_scores: bool, margins: bool) -> None:
    kind = graded if graded_scores else np.asarray
    asked = Asked(kind=kind, margins=margins)
    found = tune_fake(asked.parts, metric_bounds=(0, 1)).second_evaluation
    assert found is not None and not found.differs
    # Right and wrong are the same by chance too often.
    assert found.evaluated == (1.0 if not (graded_scores or margins) else pytest.approx(0.1, 1))
    assert found.evaluated < 0.2 or not (graded_scores or margins)


def test_random_scores_are_found_by_few() -> None:
    calls = iter(range(10**6))

    def noisy(right: NDArray[np.bool_]) -> NDArray[np.float64]:
        noise = np.random.default_rng(next(calls)).random(len(right))
        return np.where(right, 1 - 0.01 * noise, 0.01 * noise)

    found = tune_fake(Asked(kind=noisy).parts, metric_bounds=(0, 1)).second_evaluation
    assert found is not None and found.differs


# Several workers, and a study that goes on.


@pytest.mark.parametrize("kind", ["number", "array", "parts"])
def test_two_workers_in_threads(kind: str) -> None:
    asked = Asked()
    result = tune_fake(getattr(asked, kind), n_jobs=2, verify=False)
    assert result.met and result.metric == pytest.approx(SCORES.metric(result.config))  # type: ignore[arg-type]
    if kind == "number":
        return
    assert result.loss_interval is not None
    # Each trial keeps what it has seen.
    for trial in result.study.trials:
        if trial.state.is_finished() and not TrialView(trial).is_baseline:
            assert len(read_scores(trial.system_attrs)) == trial.user_attrs["evidence"]["samples"]
    fp32 = [count for name, count in asked.calls if name == FP32.fingerprint]
    assert fp32 == [SAMPLES, 16] if kind == "parts" else fp32 == [SAMPLES]


@pytest.mark.parametrize("kind", ["array", "parts"])
def test_a_study_in_a_journal_goes_on(tmp_path: Path, kind: str) -> None:
    where = {"storage": str(tmp_path / "study.journal"), "study_name": "s"}
    whole = tune_fake(getattr(Asked(), kind))
    few = TuningCriterion(strategy="basic", max_trials=2)
    tune_fake(getattr(Asked(), kind), tuning_criterion=few, **where)
    asked = Asked()
    result = tune_fake(getattr(asked, kind), **where)
    assert result.met and result.metric == whole.metric
    assert result.loss_interval is not None
    fp32 = [count for name, count in asked.calls if name == FP32.fingerprint]
    # Of some samples it is seen that they are the same; all of them would be too expensive.
    assert fp32 == ([32] if kind == "parts" else [])
    again = Asked()
    assert tune_fake(getattr(again, kind), **where).metric == result.metric
    assert {name for name, _ in again.calls} <= {FP32.fingerprint}


def test_a_study_does_not_go_on_with_another_kind(tmp_path: Path) -> None:
    where = {"storage": str(tmp_path / "study.journal"), "study_name": "s"}
    tune_fake(Asked().parts, **where)
    with pytest.raises(BaselineError, match="one number here, and 1000 scores before"):
        tune_fake(Asked().number, **where)
    with pytest.raises(ChangedEvaluationError, match="1000 evaluation samples and scores from 0"):
        tune_fake(Asked().parts, metric_bounds=(0, 5), **where)

    def half(model: FakeModel, indices: Any = None) -> Any:
        scores = SCORES.scores_of(model.config) > 0
        return scores[:500] if indices is None else ~scores[indices]

    with pytest.raises(ChangedEvaluationError, match="other evaluation data"):
        tune_fake(half, **where)


def test_a_study_goes_on_when_its_function_takes_indices_now(tmp_path: Path) -> None:
    where = {"storage": str(tmp_path / "study.journal"), "study_name": "s"}
    few = TuningCriterion(strategy="basic", max_trials=2)
    tune_fake(Asked().array, tuning_criterion=few, **where)
    result = tune_fake(Asked().parts, **where)
    assert result.met and result.loss_interval is not None


# By hand, with a real model, and on the command line.


@pytest.mark.parametrize("kind", ["array", "parts"])
def test_by_hand(kind: str) -> None:
    backend = backend_of()
    space = backend.tuning_space()
    asked = Asked()
    study = optuna.create_study(
        direction="maximize",
        sampler=BasicQuantSampler(space, criterion=CRITERION),
    )
    objective = QuantObjective(backend, space, getattr(asked, kind), CRITERION, stopping=STOPPING)
    search(study, objective)
    assert study.best_trial.value == pytest.approx(
        SCORES.metric(space.config_from_params(study.best_trial.params))
    )
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED"]
    assert bool(pruned) == (kind == "parts")


@pytest.mark.parametrize("kind", ["array", "parts"])
def test_a_real_model(tmp_path: Path, kind: str) -> None:
    model = onnx_models.convnet()
    x = onnx_models.samples(300, 2, 8, 8)
    (expected,) = onnx_models.run(model, {"x": x})
    labels = expected.argmax(axis=1)

    def array(session: Any) -> Any:
        return parts(session)

    def parts(session: Any, indices: Any = None) -> Any:
        chosen = slice(None) if indices is None else indices
        (logits,) = session.run(None, {"x": x[chosen]})
        return logits.argmax(axis=1) == labels[chosen]

    result = tune(
        model,
        calibration_data={"x": x[:64]},
        evaluate={"array": array, "parts": parts}[kind],
        accuracy_criterion=AccuracyCriterion(tolerable_loss=0.05),
        session_options=onnx_models.exact_options(),
        tuning_criterion=TuningCriterion(objective="ops"),
    )
    assert result.met and result.baseline == 1.0
    assert result.loss_interval is not None
    low, high = result.loss_interval
    assert result.loss is not None and low <= result.loss <= high


def test_the_command_takes_such_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    monkeypatch.chdir(tmp_path)
    model = onnx_models.convnet()
    x = onnx_models.samples(300, 2, 8, 8)
    onnx.save(model, "model.onnx")
    (expected,) = onnx_models.run(model, {"x": x})
    np.savez("data.npz", x=x, y=expected.argmax(axis=1))
    np.savez("calib.npz", x=x[:64])
    Path("own.py").write_text(
        "import numpy as np\n"
        "data = np.load('data.npz')\n"
        "def scores(session, indices=None):\n"
        "    chosen = slice(None) if indices is None else indices\n"
        "    (logits,) = session.run(None, {'x': data['x'][chosen]})\n"
        "    return (logits.argmax(axis=1) == data['y'][chosen]).astype(float)\n"
    )
    base = ["tune", "model.onnx", "--calibration", "calib.npz", "--evaluate", "own.py:scores"]
    base += ["--objective", "ops"]
    options = [
        "--metric-bounds",
        "0",
        "1",
        "--early-stopping",
        "exact",
        "--tolerable-loss",
        "0.05",
    ]
    assert main([*base, *options]) == 0
    assert "95% confidence" in capsys.readouterr().out
