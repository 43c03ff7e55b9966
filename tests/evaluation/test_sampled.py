"""What a trial says that was evaluated sample by sample, and what it takes over."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import logging
import math
import re
from typing import Any
import warnings

from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
from numpy.typing import NDArray
import optuna
from optuna.trial import TrialState
import pandas as pd
import pytest
from sample_models import CRITERION
from sample_models import STOPPING
from sample_models import SampleScores
from sample_models import sampler_of
from sample_models import search

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import StopReason
from optuna_quant.callbacks.spent import trials_used
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.evaluation.sample_evaluation import EvaluationProgress
from optuna_quant.evaluation.sample_evaluation import SampleEvaluation
from optuna_quant.evaluation.sampled import furthest
from optuna_quant.pruners import AccuracyPruner
from optuna_quant.samplers import ExhaustiveQuantSampler
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import HasPerSampleScores
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Race
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.sequential import EarlyStopping
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.baseline import set_baseline
from optuna_quant.study.errors import BaselineError
from optuna_quant.study.fidelity import DECIDED
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.fidelity import Fidelity
from optuna_quant.study.population_record import read_population
from optuna_quant.study.sample_record import read_scores
from optuna_quant.study.sample_record import samples_of


# Quantizing everything misses the criterion by far, without "bad" it is met.
DAMAGE = {"bad": 0.2, "good": 0.01, "none": 0.0}


class Scripted(StagedQuantSampler):
    """Asks for what a test gives it."""

    requests: tuple[Stage | Race, ...] = ()
    results: list[Evaluation]
    sees: bool | None = None

    def plan(self, space: TuningSpace) -> Plan:
        self.results = []
        for request in self.requests:
            self.results += yield request
        self.sees = yield HasPerSampleScores()


def fallback(space: TuningSpace, *ops: str) -> QuantConfig:
    return space.default().with_fallback(*ops)


def setup(
    *requests: Callable[[TuningSpace], Stage | Race],
    backend: FakeBackend | None = None,
    evaluation: Any = None,
    stopping: EarlyStopping | None = STOPPING,
    pruner: optuna.pruners.BasePruner | None = None,
    criterion: AccuracyCriterion = CRITERION,
    study: optuna.Study | None = None,
    **kwargs: Any,
) -> tuple[optuna.Study, QuantObjective, Any]:
    backend = backend or FakeBackend(DAMAGE)
    space = backend.tuning_space()
    sampler = Scripted(space, criterion=criterion)
    sampler.requests = tuple(request(space) for request in requests)
    pruner = pruner or optuna.pruners.NopPruner()
    if study is None:
        study = optuna.create_study(direction=criterion.direction, sampler=sampler, pruner=pruner)
    else:
        study.sampler, study.pruner = sampler, pruner
    if evaluation is None:
        evaluation = SampleScores(backend.damage, **kwargs)
    objective = QuantObjective(backend, space, evaluation, criterion, stopping=stopping)
    return study, objective, evaluation


def full(*ops: str) -> Callable[[TuningSpace], Stage]:
    return lambda space: Stage("full", [fallback(space, *ops)])


def decision(*ops: str) -> Callable[[TuningSpace], Stage]:
    return lambda space: Stage("decision", [fallback(space, *ops)], provisional=True)


def race(*sets: tuple[str, ...], rounds: int = 1, fraction: float = 1 / 16) -> Any:
    return lambda space: Race(
        "race", [fallback(space, *ops) for ops in sets], rounds=rounds, fraction=fraction
    )


def evidence(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    found: dict[str, Any] = trial.user_attrs[record.EVIDENCE]
    return found


# What trials say.


def test_fake_is_a_sample_evaluation() -> None:
    assert isinstance(SampleScores(DAMAGE), SampleEvaluation)
    assert not isinstance(lambda model: 0.5, SampleEvaluation)


def test_baseline_keeps_its_samples() -> None:
    study, objective, evaluation = setup(full())
    search(study, objective)
    population = read_population(study)
    fp32 = FakeBackend(DAMAGE).tuning_space().fp32()
    assert population is not None
    assert (population.baseline == evaluation.scores_of(fp32)).all()
    assert population.error_probability == 1e-3
    assert population.method == "paired"
    assert study.trials[0].value == evaluation.metric(fp32)
    known = Baseline(evaluation.metric(fp32), 0, population.key)
    assert get_baseline(study) == known
    # The hard ones come first.
    order = population.order
    margins = evaluation._margins[order.indices]
    assert margins[:100].mean() < 0.9 * margins.mean()


def test_a_failing_trial_says_why() -> None:
    study, objective, evaluation = setup(full(), samples=4000, breaks="any")
    search(study, objective)
    _, trial = study.trials
    assert trial.state == TrialState.PRUNED
    found = evidence(trial)
    truth = evaluation.metric(FakeBackend(DAMAGE).tuning_space().default())
    needed = CRITERION.threshold(study.trials[0].value or 0.0)
    assert found["decision"] == "fails"
    assert 0 < found["samples"] < found["of"] == 4000
    assert found["evaluated"] == found["samples"] == samples_of(trial.system_attrs)
    low, high = found["bounds"]
    assert low <= truth <= high <= needed
    assert low <= found["estimate"] <= high
    assert trial.value == pytest.approx(found["estimate"])
    assert found["error_probability"] == 1e-3
    assert found["method"] == "paired"
    assert found["reason"] == (
        f"Does not meet the criterion (error probability 0.001): after {found['samples']} of 4000 "
        f"samples the metric is at most {high:.6g}, and {needed:.6g} is needed."
    )
    assert trial.user_attrs[record.MET] is False
    assert evaluation.seen_of(trial.user_attrs[record.FINGERPRINT]) == found["samples"]


def test_exact_method_says_that_nothing_can_help() -> None:
    study, objective, _ = setup(full(), stopping=EarlyStopping(method="exact"))
    search(study, objective)
    found = evidence(study.trials[1])
    needed = CRITERION.threshold(study.trials[0].value or 0.0)
    assert found["reason"] == (
        f"Cannot meet the criterion after {found['samples']} of 1000 samples: even if all others "
        f"had the best score, the metric would be {found['bounds'][1]:.6g}, and {needed:.6g} is "
        "needed."
    )
    assert found["bounds"][1] < needed
    best = 1 - (read_scores(study.trials[1].system_attrs) == 0).sum() / 1000
    assert found["bounds"][1] == pytest.approx(best)


def test_the_exact_sentence_is_exact_whatever_bets_know() -> None:
    study, objective, _ = setup(full(), batch=900, breaks="any")
    search(study, objective)
    found = evidence(study.trials[1])
    best = 1 - (read_scores(study.trials[1].system_attrs) == 0).sum() / 1000
    assert found["bounds"][1] <= best
    assert "Cannot meet the criterion after 900 of 1000" in found["reason"]
    assert f"the metric would be {best:.6g}" in found["reason"]


def test_lower_is_better() -> None:
    criterion = AccuracyCriterion(
        higher_is_better=False, criterion="absolute", tolerable_loss=0.05
    )
    study, objective, evaluation = setup(
        full(),
        decision("bad"),
        criterion=criterion,
        higher_is_better=False,
        samples=4000,
        breaks="any",
    )
    search(study, objective)
    baseline, default, good = study.trials
    found = evidence(default)
    needed = criterion.threshold(baseline.value or 0.0)
    assert found["decision"] == "fails"
    assert needed <= found["bounds"][0] <= found["bounds"][1]
    assert f"the metric is at least {found['bounds'][0]:.6g}" in found["reason"]
    assert evidence(good)["decision"] == "provisionally met"
    assert evaluation.most_repeats == 1


def test_a_promise_is_no_result() -> None:
    study, objective, evaluation = setup(decision("bad"))
    search(study, objective)
    _, trial = study.trials
    found = evidence(trial)
    assert trial.state == TrialState.PRUNED
    assert found["decision"] == "provisionally met"
    assert found["reason"] == (
        f"Probably meets the criterion after {found['samples']} of 1000 samples; not a result "
        "until all samples are evaluated."
    )
    assert record.MET not in trial.user_attrs
    low, high = found["bounds"]
    assert low <= evaluation.metric(fallback(study.sampler.space, "bad")) <= high
    stop = ExitPolicy(CRITERION).decide(study)
    assert stop is not None
    assert stop.reason is StopReason.EXHAUSTED


def test_a_race_goes_to_its_number() -> None:
    study, objective, _ = setup(full(), race(("bad",), ("good",)))
    search(study, objective)
    for trial in study.trials[2:]:
        assert evidence(trial)["samples"] == 63
        assert evidence(trial)["decision"] in ("open", "fails")
        if evidence(trial)["decision"] == "open":
            assert evidence(trial)["reason"] == (
                "Evaluated as far as needed for its rank, after 63 of 1000 samples."
            )


def test_later_trials_go_on_where_earlier_ones_ended() -> None:
    study, objective, evaluation = setup(race(("bad",)), decision("bad"), full("bad"))
    search(study, objective)
    _, raced, promised, complete = study.trials
    assert promised.user_attrs[record.CONTINUES] == raced.number
    assert complete.user_attrs[record.CONTINUES] == promised.number
    counts = [evidence(t)["evaluated"] for t in (raced, promised, complete)]
    assert sum(counts) == 1000
    assert evidence(complete) == {
        "samples": 1000, "of": 1000, "evaluated": counts[2], "decision": "complete"
    }  # fmt: skip
    assert complete.state == TrialState.COMPLETE
    assert complete.value == evaluation.metric(fallback(study.sampler.space, "bad"))
    assert complete.user_attrs[record.MET] is True
    assert evaluation.most_repeats == 1
    scores = read_scores(complete.system_attrs)
    assert (scores[:63] == read_scores(raced.system_attrs)).all()


def test_a_duplicate_takes_over_as_much_as_it_needs() -> None:
    backend = FakeBackend({"bad": 0.2, "good": 0.01, "same": 0.0}, duplicates=["same"])
    study, objective, evaluation = setup(
        full(), full("same"), decision("bad"), decision("bad", "same"), full("bad", "same"),
        full("bad"), backend=backend,
    )  # fmt: skip
    search(study, objective)
    _, default, duplicate, promised, promised_duplicate, complete_duplicate, complete = (
        study.trials
    )
    assert duplicate.state == TrialState.PRUNED
    assert duplicate.user_attrs[record.REUSED_FROM] == default.number
    assert evidence(duplicate)["decision"] == "fails"
    assert evidence(duplicate)["evaluated"] == 0
    assert evidence(duplicate)["reason"] == evidence(default)["reason"]
    assert promised_duplicate.user_attrs[record.REUSED_FROM] == promised.number
    assert complete_duplicate.user_attrs[record.CONTINUES] == promised.number
    assert complete.user_attrs[record.REUSED_FROM] == complete_duplicate.number
    assert complete.value == complete_duplicate.value
    assert evaluation.most_repeats == 1
    # Also for races, which look at the same samples of all.
    assert (
        read_scores(complete.system_attrs) == read_scores(complete_duplicate.system_attrs)
    ).all()
    assert trials_used(study.trials) == 2


def test_the_one_that_has_seen_most_is_continued() -> None:
    study, objective, _ = setup(race(("bad",)), decision("bad"))
    search(study, objective)
    fingerprint = study.trials[1].user_attrs[record.FINGERPRINT]
    population = read_population(study)
    assert population is not None
    found = furthest(study.trials, fingerprint, population.key)
    assert found is not None
    assert found.number == 2
    assert furthest(study.trials, "another", population.key) is None


def test_small_sets_are_evaluated_in_full() -> None:
    study, objective, evaluation = setup(
        full("bad"), race(("bad",), ("good",)), samples=20, batch=7
    )
    search(study, objective)
    assert study.trials[1].state == TrialState.COMPLETE
    assert evaluation.most_repeats == 1


def test_scores_of_many_values() -> None:
    class Graded(SampleScores):
        def scores_of(self, config: QuantConfig) -> NDArray[np.float64]:
            noise = np.random.default_rng(3).random(self.samples)
            return super().scores_of(config) * (0.9 + 0.1 * noise)

    study, objective, evaluation = setup(
        full(), decision("bad"), full("bad"), evaluation=Graded(DAMAGE)
    )
    search(study, objective)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    truth = evaluation.metric(fallback(study.sampler.space, "bad"))
    assert study.trials[3].value == truth
    assert evaluation.most_repeats == 1


def test_those_who_watch_see_how_far_it_is() -> None:
    seen: list[EvaluationProgress] = []
    backend = FakeBackend(DAMAGE)
    study, _, evaluation = setup(full("bad"), backend=backend)
    objective = QuantObjective(
        backend,
        backend.tuning_space(),
        evaluation,
        CRITERION,
        stopping=STOPPING,
        watch=seen.append,
    )
    search(study, objective)
    assert [s.samples for s in seen if s.trial == 0] == list(range(50, 1001, 50))
    later = [s for s in seen if s.trial == 1]
    assert later
    for one in later:
        assert one.of == 1000
        assert one.bounds is not None
        low, high = one.bounds()
        # The estimate is unbiased, so it may lie outside of them.
        assert low <= evaluation.metric(fallback(backend.tuning_space(), "bad")) <= high
        assert abs(one.metric - high) < 0.1


# Where samples are not looked at one by one.


@pytest.mark.parametrize("pruner", [optuna.pruners.MedianPruner(), AccuracyPruner(CRITERION)])
def test_no_pruner_stops_an_evaluation(pruner: optuna.pruners.BasePruner) -> None:
    study, objective, evaluation = setup(
        full(), decision("bad"), race(("good",), ("none",)), stopping=None, pruner=pruner
    )
    search(study, objective)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert not evaluation.seen
    assert set(evaluation.calls.values()) == {1}
    assert study.sampler.sees is False
    assert read_population(study) is None


def test_by_default_models_are_evaluated_in_full() -> None:
    backend = FakeBackend(DAMAGE)
    evaluation = SampleScores(DAMAGE)
    study = optuna.create_study(
        direction="maximize", sampler=ExhaustiveQuantSampler(backend.tuning_space())
    )
    objective = QuantObjective(backend, backend.tuning_space(), evaluation, CRITERION)
    search(study, objective)
    assert not evaluation.seen


def test_without_bounds_in_full() -> None:
    evaluation = SampleScores(DAMAGE)
    evaluation.bounds = None
    study, objective, _ = setup(full(), decision("bad"), evaluation=evaluation)
    search(study, objective)
    assert not evaluation.seen


def test_an_evaluation_without_samples_stays_as_it_was() -> None:
    def trials(stopping: EarlyStopping | None) -> list[Any]:
        backend = FakeBackend(DAMAGE)
        study = optuna.create_study(direction="maximize", sampler=sampler_of("auto", backend))
        space = backend.tuning_space()
        objective = QuantObjective(
            backend, space, lambda m: m.accuracy, CRITERION, stopping=stopping
        )
        search(study, objective)
        return [(t.params, t.value, t.user_attrs, t.constraints) for t in study.trials]

    assert trials(STOPPING) == trials(None)


class Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def logged() -> Iterator[list[str]]:
    handler = Warnings()
    logger = logging.getLogger("optuna_quant.evaluation.study_samples")
    logger.addHandler(handler)
    yield handler.texts
    logger.removeHandler(handler)


def test_a_baseline_without_samples_is_said_once(logged: list[str]) -> None:
    study, objective, _ = setup(stopping=None)
    search(study, objective)
    study, objective, evaluation = setup(full(), decision("bad"), full("good"), study=study)
    search(study, objective)
    assert [t.state for t in study.trials] == [TrialState.COMPLETE] * 4
    assert not evaluation.seen
    assert len(logged) == 1
    assert "without scores of single samples" in logged[0]
    assert study.sampler.sees is False


def test_a_given_baseline_has_no_samples(logged: list[str]) -> None:
    study, objective, evaluation = setup(full(), decision("bad"))
    set_baseline(study, Baseline(0.9))
    search(study, objective)
    assert not evaluation.seen
    assert len(logged) == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"samples": 900}, "here there are 900"),
        ({"bounds": (0.0, 2.0)}, r"with scores from 0 to 2"),
    ],
)
def test_other_data_in_a_continued_study_are_refused(change: dict[str, Any], text: str) -> None:
    study, objective, _ = setup(full())
    search(study, objective)
    evaluation = SampleScores(DAMAGE, samples=change.get("samples", 1000))
    evaluation.bounds = change.get("bounds", (0.0, 1.0))
    study, objective, _ = setup(full(), full("bad"), study=study, evaluation=evaluation)
    for _ in range(2):  # Not only the first time.
        with pytest.raises(BaselineError, match=text) as error:
            study.optimize(objective, n_trials=1)
        assert "started with 1000 evaluation samples and scores from 0 to 1" in str(error.value)
    assert not evaluation.seen


# Evaluations that do not keep to the protocol.


class Broken(SampleScores):
    def __init__(self, how: str, *, only: str = "quantized") -> None:
        super().__init__(DAMAGE)
        self._how = how
        self._only = only

    def scores(self, model: FakeModel, indices: NDArray[np.intp]) -> Iterator[NDArray[np.float64]]:
        whole = super().scores(model, indices)
        if bool(model.config.quantized_ops) != (self._only == "quantized"):
            yield from whole
        elif self._how == "few":
            yield from list(whole)[:-1]
        elif self._how == "many":
            yield from whole
            yield np.ones(5)
        elif self._how == "nan":
            yield next(whole) * np.nan
        elif self._how == "none":
            return
        else:
            yield next(whole)
            raise RuntimeError("out of memory")


@pytest.mark.parametrize("how", ["few", "none", "nan", "raise"])
@pytest.mark.parametrize("fidelity", ["full", "race"])
def test_an_evaluation_that_ends_early_fails_the_trial(how: str, fidelity: str) -> None:
    wanted = full("bad") if fidelity == "full" else race(("bad",), ("none",))
    study, objective, _ = setup(wanted, evaluation=Broken(how))
    search(study, objective, most=30)
    failed = [t for t in study.trials if t.state == TrialState.FAIL]
    assert len(failed) == len(study.trials) - 1
    for trial in failed:
        reason = trial.user_attrs[record.FAILURE]
        if how == "raise":
            assert reason == "Not evaluated: RuntimeError: out of memory"
        elif how == "nan":
            assert "must be finite" in reason
        else:
            assert "must give one score for each of the" in reason
    assert study.sampler.abandoned(study)


class Reworked(SampleScores):
    """Gives its batches in another form."""

    def __init__(self, rework: Callable[[NDArray[np.float64]], Iterator[Any]]) -> None:
        super().__init__(DAMAGE)
        self._rework = rework

    def scores(self, model: FakeModel, indices: NDArray[np.intp]) -> Iterator[NDArray[np.float64]]:
        for batch in super().scores(model, indices):
            yield from self._rework(batch)


def one_buffer() -> Callable[[NDArray[np.float64]], Iterator[Any]]:
    buffer = np.empty(50)

    def rework(batch: NDArray[np.float64]) -> Iterator[Any]:
        buffer[: len(batch)] = batch
        yield buffer[: len(batch)]

    return rework


@pytest.mark.parametrize(
    "rework",
    [
        one_buffer(),
        lambda batch: iter([np.empty(0), batch, np.empty(0)]),
        lambda batch: iter([batch.astype(np.float32)]),
        lambda batch: iter([batch.astype(bool)]),
        lambda batch: iter([np.repeat(batch, 2)[::2]]),
        lambda batch: iter([batch.tolist()]),
        lambda batch: iter([pd.Series(batch)]),
        lambda batch: iter([batch[:7], batch[7:8], batch[8:]]),
    ],
)
@pytest.mark.parametrize("loss", [0.05, 0.001])
def test_batches_may_come_in_any_form(
    rework: Callable[[NDArray[np.float64]], Iterator[Any]], loss: float
) -> None:
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=loss)
    kept = []
    for evaluation in (SampleScores(DAMAGE), Reworked(rework)):
        study, objective, _ = setup(full(), evaluation=evaluation, criterion=criterion)
        search(study, objective)
        trial = study.trials[1]
        scores = read_scores(trial.system_attrs)
        kept.append((study.trials[0].value, trial.state, scores))
    (baseline, state, plain), (same, also, found) = kept
    assert (baseline, state) == (same, also)
    shorter = min(len(plain), len(found))  # One may be found out in the middle of a batch.
    assert shorter > 0
    np.testing.assert_array_equal(plain[:shorter], found[:shorter])
    assert len(plain) - len(found) < 50


@pytest.mark.parametrize(
    ("rework", "form"),
    [
        (lambda batch: iter([batch[:, None]]), "float64 of shape (50, 1)"),
        (lambda batch: iter([batch.astype(object)]), "object of shape (50,)"),
        (lambda batch: iter([batch.astype(complex)]), "complex128 of shape (50,)"),
    ],
)
def test_batches_that_are_no_scores_are_named(
    rework: Callable[[NDArray[np.float64]], Iterator[Any]], form: str
) -> None:
    study, objective, _ = setup(full("bad"), evaluation=Reworked(rework))
    with pytest.raises(BaselineError, match=re.escape(f"but gave {form}")):
        study.optimize(objective, n_trials=1)


def test_an_error_closes_the_evaluation() -> None:
    closed = []

    class Closing(SampleScores):
        def scores(
            self, model: FakeModel, indices: NDArray[np.intp]
        ) -> Iterator[NDArray[np.float64]]:
            try:
                for batch in super().scores(model, indices):
                    yield batch + 2.0 * bool(model.config.quantized_ops)
            finally:
                closed.append(model.fingerprint)

    errors = []

    def keep(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if trial.state == TrialState.FAIL:
            errors.append((trial.user_attrs[record.FAILURE], len(closed)))

    study, objective, _ = setup(full("bad"), evaluation=Closing(DAMAGE))
    study.optimize(objective, n_trials=2, callbacks=[keep])
    ((reason, count),) = errors
    assert "not between its bounds" in reason
    assert count == len(closed) == 2


@pytest.mark.parametrize("how", ["few", "many", "none", "raise"])
def test_a_baseline_that_ends_early_ends_the_search(how: str) -> None:
    study, objective, _ = setup(full("bad"), evaluation=Broken(how, only="fp32"))
    with pytest.raises(BaselineError, match=r"one score for each of the 1000|out of memory"):
        study.optimize(objective, n_trials=1)
    assert read_population(study) is None


def test_a_failed_trial_leaves_nothing_to_continue() -> None:
    class Once(SampleScores):
        failures = 1

        def scores(
            self, model: FakeModel, indices: NDArray[np.intp]
        ) -> Iterator[NDArray[np.float64]]:
            for count, batch in enumerate(super().scores(model, indices)):
                if model.config.quantized_ops and count == 1 and self.failures:
                    self.failures -= 1
                    raise RuntimeError
                yield batch

    study, objective, evaluation = setup(full("bad"), evaluation=Once(DAMAGE))
    search(study, objective)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert record.CONTINUES not in study.trials[2].user_attrs
    assert evaluation.most_repeats == 2


# Several objectives.


def test_several_objectives_are_the_users_own() -> None:
    backend = FakeBackend(DAMAGE)
    space = backend.tuning_space()
    evaluation = SampleScores(DAMAGE)
    inner = QuantObjective(backend, space, evaluation, CRITERION, stopping=STOPPING)
    sampler = sampler_of("basic", backend)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        value = inner.metric_of(trial)
        return value, trial.user_attrs[record.MODEL_BYTES]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while not sampler.is_exhausted(study):
            assert len(study.trials) < 100
            study.optimize(objective, n_trials=1)
    pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
    assert pruned
    assert all(record.EVIDENCE in trial.user_attrs for trial in pruned)
    assert not any(trial.intermediate_values for trial in study.trials)
    assert evaluation.most_repeats == 1
    assert study.best_trials


# What counts.


def add(study: optuna.Study, count: int = 1, **kwargs: Any) -> None:
    """Add trials whose claim has this fidelity."""
    fidelity = kwargs.pop("fidelity", FULL)
    samples = kwargs.pop("samples", 0)
    for _ in range(count):
        number = len(study.get_trials(deepcopy=False))
        claim = record.Claim(number, f"key{number}", "stage", "worker", fidelity=fidelity)
        attrs: dict[str, Any] = {record.CLAIM: claim.to_attr()}
        if samples:
            attrs[record.SCORES] = {"samples": samples}
        study.add_trial(optuna.trial.create_trial(system_attrs=attrs, **kwargs))


def test_trials_that_go_on_do_not_count() -> None:
    study = optuna.create_study(direction="maximize")
    add(study, state=TrialState.PRUNED)
    add(study, 3, state=TrialState.PRUNED, user_attrs={record.CONTINUES: 0})
    add(study, value=0.9, user_attrs={record.CONTINUES: 0})
    add(study, state=TrialState.PRUNED, user_attrs={record.REUSED_FROM: 0})
    assert trials_used(study.trials) == 1
    set_baseline(study, Baseline(1.0))
    assert ExitPolicy(CRITERION, max_trials=2).decide(study) is None
    assert ExitPolicy(CRITERION, max_trials=2).trials_left(study) == 1


def test_what_a_race_takes_over_does_not_end_the_search() -> None:
    study = optuna.create_study(direction="maximize")
    set_baseline(study, Baseline(1.0))
    reused = {"state": TrialState.PRUNED, "user_attrs": {record.REUSED_FROM: 0}, "samples": 32}
    add(study, state=TrialState.PRUNED, samples=32)
    add(study, 500, **reused, fidelity=Fidelity(32))
    add(study, 500, **reused, fidelity=DECIDED)
    add(study, 999, **reused)
    policy = ExitPolicy(CRITERION, max_trials=None, timeout=None)
    assert policy.decide(study) is None
    # What is asked in full again and again is all there is.
    add(study, **reused)
    stop = policy.decide(study)
    assert stop is not None
    assert stop.reason is StopReason.EXHAUSTED
    assert "last 1000 configurations" in stop.message
    add(study, state=TrialState.PRUNED, samples=100)
    assert policy.decide(study) is None


def test_the_pruner_of_another_criterion_is_refused() -> None:
    pruner = AccuracyPruner(AccuracyCriterion(criterion="absolute", tolerable_loss=0.9))
    study, objective, _ = setup(full(), pruner=pruner)
    with pytest.raises(ValueError, match="The sampler uses another criterion than the pru"):
        search(study, objective)
    assert get_baseline(study) is None


def test_the_metric_is_that_of_the_whole_set_to_the_last_bit() -> None:
    class Odd(SampleScores):
        def scores_of(self, config: QuantConfig) -> NDArray[np.float64]:
            noise = np.random.default_rng(3).random(self.samples)
            return np.where(super().scores_of(config) > 0, noise, math.pi / 4)

    study, objective, evaluation = setup(full("bad"), evaluation=Odd(DAMAGE))
    search(study, objective)
    space = study.sampler.space
    assert study.trials[0].value == evaluation.metric(space.fp32())
    assert study.trials[1].value == evaluation.metric(fallback(space, "bad"))


def test_other_metrics_and_other_data_are_refused_before_any_trial() -> None:
    study, objective, evaluation = setup(full())
    search(study, objective)
    before = len(study.trials)

    def other(evaluation: SampleScores) -> QuantObjective:
        return QuantObjective(
            FakeBackend(DAMAGE),
            FakeBackend(DAMAGE).tuning_space(),
            evaluation,
            CRITERION,
            stopping=STOPPING,
        )

    scores = SampleScores(DAMAGE)
    scores.name = "another"  # type: ignore[attr-defined]
    named = other(scores)
    with pytest.raises(BaselineError, match="without a name, but here it is the metric 'another'"):
        named.check_continued(study)
    half = other(SampleScores(DAMAGE, samples=evaluation.samples // 2))
    with pytest.raises(BaselineError, match=r"Use the same data and metric"):
        half.check_continued(study)
    scores = SampleScores(DAMAGE)
    scores.scores_of = lambda config: 1 - evaluation.scores_of(config)  # type: ignore
    turned = other(scores)
    with pytest.raises(BaselineError, match="started with other evaluation data"):
        turned.check_continued(study)
    other(SampleScores(DAMAGE)).check_continued(study)
    assert len(study.trials) == before


def test_an_evaluation_that_sorts_its_indices_changes_no_order() -> None:
    class Sorts(SampleScores):
        def scores(self, model: Any, indices: Any) -> Any:
            found = [np.array(some) for some in super().scores(model, indices.copy())]
            indices.sort()
            yield from found

    plain, objective, _ = setup(full())
    search(plain, objective)
    study, objective, _ = setup(full(), evaluation=Sorts(DAMAGE))
    search(study, objective)
    assert [trial.value for trial in study.trials] == [trial.value for trial in plain.trials]
    assert [evidence(trial) for trial in study.trials[1:]] == [
        evidence(trial) for trial in plain.trials[1:]
    ]
