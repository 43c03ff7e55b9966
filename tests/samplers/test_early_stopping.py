"""Strategies that search with early stopping: what they promise, whatever the samples say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from fake_backend import FakeBackend
from fake_backend import FakeModel
import numpy as np
from numpy.typing import NDArray
import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState
import pytest
from sample_models import CRITERION
from sample_models import DAMAGE
from sample_models import STOPPING
from sample_models import SampleScores
from sample_models import answers
from sample_models import backend_of
from sample_models import sampler_of
from sample_models import search
from samplers.parallel_worker import ANSWERING
from samplers.parallel_worker import ENUMERATING
from samplers.parallel_worker import LEARNING
from samplers.parallel_worker import NAMES
from samplers.parallel_worker import OTHERS
from samplers.parallel_worker import WITH_BLOCKS
from samplers.parallel_worker import Log
import services
from zygote import Zygote

from optuna_quant.callbacks import ExitPolicy
from optuna_quant.callbacks import StopReason
from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import QuantSampler
from optuna_quant.samplers import StagedQuantSampler
from optuna_quant.samplers import strategies
from optuna_quant.samplers._engine.requests import Plan
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.selection.answer import best_met_trial
from optuna_quant.sequential import EarlyStopping
from optuna_quant.sequential import SampleOrder
from optuna_quant.sequential import difficulty_levels
from optuna_quant.space.config import QuantConfig
from optuna_quant.space.space import TuningSpace
from optuna_quant.study import record
from optuna_quant.study.baseline import get_baseline
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.trial_view import TrialView


WORKERS = 4
BREAKS = ["hard", "any", "easy"]
FEW = {op: DAMAGE[op] for op in ("op0", "op1", "op2", "op3")}


def damage_of(name: str) -> dict[str, float]:
    """What quantization breaks; what tries everything has fewer ops to try."""
    return FEW if name in ENUMERATING else DAMAGE


def study_of(
    name: str,
    *,
    backend: FakeBackend | None = None,
    storage: Any = None,
    criterion: AccuracyCriterion = CRITERION,
    **options: Any,
) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name="study",
        direction="maximize",
        sampler=sampler_of(
            name, backend or backend_of(damage_of(name)), criterion=criterion, **options
        ),
        load_if_exists=True,
    )


def objective_of(
    evaluation: SampleScores,
    *,
    backend: FakeBackend | None = None,
    criterion: AccuracyCriterion = CRITERION,
    stopping: EarlyStopping | None = STOPPING,
) -> QuantObjective:
    backend = backend or backend_of(evaluation.damage)
    return QuantObjective(
        backend, backend.tuning_space(), evaluation, criterion, stopping=stopping
    )


@cache
def evaluated_alone(name: str) -> tuple[optuna.Study, SampleScores]:
    """A whole search by one worker, to compare with; nothing may be added to it."""
    study, evaluation = study_of(name), SampleScores(damage_of(name))
    search(study, objective_of(evaluation))
    return study, evaluation


def searched_alone(name: str) -> optuna.Study:
    study, _ = evaluated_alone(name)
    return study


def claim(trial: FrozenTrial) -> record.Claim:
    found = TrialView(trial).claim
    assert found is not None
    return found


def asked(study: optuna.Study) -> list[tuple[str, str, int | str]]:
    return [(claim(t).stage, claim(t).key, claim(t).fidelity) for t in study.trials]


def check(study: optuna.Study, evaluation: SampleScores, backend: FakeBackend) -> None:
    """What holds for every search with early stopping."""
    space = backend.tuning_space()
    assert evaluation.most_repeats == 1
    assert not evaluation.calls
    for trial in study.trials:
        config = space.config_from_params(trial.params)
        if trial.state == TrialState.COMPLETE:
            assert trial.value == evaluation.metric(config)
            assert evaluation.seen_of(backend.fingerprint(config)) == evaluation.samples
        else:
            assert trial.state == TrialState.PRUNED
            assert record.EVIDENCE in trial.user_attrs
            assert record.ACCURACY not in trial.constraints
    assert answers(study, backend) <= {
        space.config_from_params(trial.params).key
        for trial in study.trials
        if trial.state == TrialState.COMPLETE
    }


def check_answers(name: str, found: set[str], expected: set[str]) -> None:
    """Several workers find what one finds."""
    if name in ENUMERATING:
        # Who asks when nothing is left is given what is outside the space: that may meet it, too.
        assert expected
        assert found >= expected
    else:
        assert found == expected


def test_every_strategy_is_tested() -> None:
    ours = {n for n, c in strategies().items() if c.__module__.startswith("optuna_quant.")}
    assert {name.removesuffix(WITH_BLOCKS) for name in (*NAMES, *OTHERS)} == ours


def test_every_strategy_that_uses_blocks_is_tested_with_blocks() -> None:
    """Those that have them from another, as auto and pareto from surrogate, do the same."""
    using = {n for n, c in strategies().items() if "blocks" in signature(c.__init__).parameters}
    using = {n for n in using if strategies()[n].__module__.startswith("optuna_quant.")}
    assert {f"{name}{WITH_BLOCKS}" for name in using} == {n for n in NAMES if WITH_BLOCKS in n}


# Every strategy, to its end.


@pytest.mark.parametrize(
    ("name", "breaks"),
    [
        # Each strategy, and two of three ways to break, the first of them for others to compare.
        pytest.param(name, breaks, marks=pytest.mark.slow if j == 1 + i % 2 else ())
        for i, name in enumerate(NAMES)
        for j, breaks in enumerate(BREAKS)
        # Those that try everything do the same whatever breaks.
        if breaks == BREAKS[0] or name not in ENUMERATING
    ],
)
def test_strategies_come_to_their_end(name: str, breaks: str) -> None:
    backend = backend_of(damage_of(name))
    if breaks == BREAKS[0]:
        study, evaluation = evaluated_alone(name)
    else:
        study, evaluation = study_of(name), SampleScores(DAMAGE, breaks=breaks)
        search(study, objective_of(evaluation))
    check(study, evaluation, backend)
    configs = len({claim(trial).key for trial in study.trials})
    assert evaluation.evaluated < (configs if breaks == "hard" else configs + 1) * 1000
    if name in ANSWERING:
        assert answers(study, backend)
    else:  # Trials that were pruned count as evaluated.
        assert len(study.trials) == configs == 2 ** len(FEW) + 1
        assert {claim(trial).fidelity for trial in study.trials} == {FULL}
    # Somebody else concludes the same from the record, and asks for nothing more.
    again = study_of(name, storage=study._storage)
    assert again.sampler.is_exhausted(again)
    assert answers(again, backend) == answers(study, backend)


@pytest.mark.parametrize(
    ("name", "breaks"), [(name, BREAKS[i % len(BREAKS)]) for i, name in enumerate(ANSWERING)]
)
def test_what_is_returned_was_evaluated_on_everything(name: str, breaks: str) -> None:
    backend, evaluation = backend_of(), SampleScores(DAMAGE, breaks=breaks)
    study = study_of(name)
    study.optimize(objective_of(evaluation), n_trials=200, callbacks=[ExitPolicy(CRITERION)])
    why = study.user_attrs[record.STOPPED_BECAUSE]
    assert why["reason"] == StopReason.MET
    best = best_met_trial(study, CRITERION)
    assert best is not None
    assert best.state == TrialState.COMPLETE
    config = backend.tuning_space().config_from_params(best.params)
    fp32 = evaluation.metric(backend.tuning_space().fp32())
    assert evaluation.seen_of(backend.fingerprint(config)) == 1000
    assert CRITERION.meets(evaluation.metric(config), fp32)


@pytest.mark.parametrize("name", NAMES)
def test_same_record_same_next_trial(name: str) -> None:
    """Also for a new sampler and objective, as in a new process."""
    whole = asked(searched_alone(name))
    storage, evaluation = optuna.storages.InMemoryStorage(), SampleScores(damage_of(name))
    for number in range(len(whole)):
        if number < 10 or number % 5 == 0:
            study, objective = study_of(name, storage=storage), objective_of(evaluation)
        study.optimize(objective, n_trials=1)
    assert asked(study) == whole
    assert evaluation.most_repeats == 1


@pytest.mark.parametrize("name", ["basic", "conservative"])
def test_plans_do_not_change_their_way_by_what_comes_later(name: str) -> None:
    """The order in which the whole record would be asked for is that of the search."""
    for breaks in BREAKS:
        study = study_of(name)
        search(study, objective_of(SampleScores(DAMAGE, breaks=breaks)))
        if any(claim(trial).broken_promises for trial in study.trials):
            continue  # A broken promise does change it.
        seen = list(dict.fromkeys(key for _, key, _ in asked(study)))
        session = study.sampler._sessions.of(study)
        replay = session.policy._begin(session.history)
        replay.advance()
        assert replay.is_over
        fp32 = backend_of().tuning_space().fp32().key
        assert set(seen) - {fp32} <= replay.asked_for


@pytest.mark.parametrize("name", NAMES)
def test_equal_models_are_evaluated_once(name: str) -> None:
    damage = {op: 0.0 if op == "op5" else lost for op, lost in damage_of(name).items()}
    backend = backend_of(damage, duplicates=["op2", "op5"])
    evaluation = SampleScores(damage)
    study = study_of(name, backend=backend)
    search(study, objective_of(evaluation, backend=backend))
    assert evaluation.most_repeats == 1
    for trial in study.trials:
        if record.REUSED_FROM in trial.user_attrs:
            other = study.trials[trial.user_attrs[record.REUSED_FROM]]
            assert other.user_attrs[record.FINGERPRINT] == trial.user_attrs[record.FINGERPRINT]


@pytest.mark.parametrize("name", ["basic", "auto", "random", "tpe"])
def test_threads_evaluate_nothing_twice(name: str) -> None:
    damage = damage_of(name)
    backend, evaluation = backend_of(damage), SampleScores(damage, seconds=0.001)
    study = study_of(name)
    search(study, objective_of(evaluation), n_jobs=4)
    check(study, evaluation, backend)
    found, expected = answers(study, backend), answers(searched_alone(name), backend)
    if name in LEARNING:  # What they learn depends on who else is at work.
        assert bool(found) == bool(expected)
    else:
        check_answers(name, found, expected)


# Broken promises.


class Deceiving(SampleScores):
    """Models that look good until nearly the end: what breaks comes last in the order, or easy.

    An op breaks as many samples whatever their number.
    """

    def __init__(self, *, samples: int, margins: bool = True, last: bool = True) -> None:
        super().__init__(DAMAGE, samples=samples, margins=margins)
        levels = difficulty_levels(self._margins, samples)
        easy = np.arange(samples) if self._margins is None else np.argsort(-self._margins)
        self._broken = SampleOrder.draw(levels, seed=0).indices[::-1] if last else easy

    def scores_of(self, config: QuantConfig) -> NDArray[np.float64]:
        found = np.ones(self.samples)
        lost = round(1000 * sum(DAMAGE[op] for op in config.quantized_ops))
        found[self._broken[: min(self.samples, lost)]] = 0
        return found


class Promising(StagedQuantSampler):
    """Takes ops back as long as that is promised, then evaluates in full."""

    def plan(self, space: TuningSpace) -> Plan:
        config = space.fp32()
        for op in DAMAGE:
            changed = config.with_ops({op: space.default().ops[op]})
            (result,) = yield Stage("try", [changed], provisional=True)
            if result.met:
                config = changed
        if config.quantized_ops:
            yield Stage("answer", [config])


@pytest.mark.parametrize("samples", [1000, 3000])
def test_a_broken_promise_is_recovered_from(samples: int) -> None:
    backend = backend_of()
    evaluation = Deceiving(samples=samples)
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=50 / samples)
    sampler = Promising(backend.tuning_space(), criterion=criterion)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    search(study, objective_of(evaluation, criterion=criterion))
    assert evaluation.most_repeats == 1
    counts = [claim(trial).broken_promises for trial in study.trials]
    assert counts == sorted(counts)
    broken = [
        trial
        for trial in study.trials
        if claim(trial).stage == "answer"
        and trial.user_attrs[record.EVIDENCE]["decision"] in ("fails", "complete")
        and not trial.user_attrs.get(record.MET)
    ]
    assert broken, "nothing was promised wrongly: this tests less"
    assert max(counts) > 0
    answer = study.trials[-1]
    assert claim(answer).stage == "answer"
    assert answer.state == TrialState.COMPLETE
    assert answer.user_attrs[record.MET] is True


DECEIVING = [(True, True), (False, True), (True, False)]
SIZES = [200, 1000, 3000]


@pytest.mark.parametrize(
    ("name", "samples", "margins", "last"),
    [
        # All pairs of values.
        pytest.param(
            name,
            samples,
            *DECEIVING[(i + j) % len(SIZES)],
            marks=pytest.mark.slow if samples == 1000 else (),
        )
        for i, name in enumerate(ANSWERING)
        for j, samples in enumerate(SIZES)
    ],
)
def test_deceiving_models_do_not_keep_a_search_going(
    name: str, samples: int, margins: bool, last: bool
) -> None:
    backend = backend_of()
    evaluation = Deceiving(samples=samples, margins=margins, last=last)
    criterion = AccuracyCriterion(criterion="absolute", tolerable_loss=30 / samples)
    study = study_of(name, criterion=criterion)
    search(study, objective_of(evaluation, criterion=criterion), most=1000)
    check(study, evaluation, backend)
    if name in LEARNING:
        return  # They give up what they hardly believe in.
    assert any(
        trial.user_attrs.get(record.MET) and study.sampler.is_answer(study, trial)
        for trial in study.trials
    )


def random_scores(seed: int) -> SampleScores:
    """A model whose every configuration breaks its own samples, as many as it likes."""

    class Random(SampleScores):
        def scores_of(self, config: QuantConfig) -> NDArray[np.float64]:
            key = int(config.key[:12], 16)
            rng = np.random.default_rng([seed, key % 2**32])
            part = 0.0 if not config.quantized_ops else rng.choice([0.0, 0.04, 0.05, 0.06, 0.3])
            margins = np.random.default_rng(1).random(self.samples)
            place = rng.choice([-1.0, 0.0, 1.0]) * margins + rng.random(self.samples)
            found = np.ones(self.samples)
            found[np.argsort(place)[: round(part * self.samples)]] = 0
            return found

    return Random(DAMAGE)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["basic", "auto", "conservative", "mse_v2"])
def test_any_scores_come_to_an_end(name: str, seed: int) -> None:
    backend, evaluation = backend_of(), random_scores(seed)
    study = study_of(name)
    search(study, objective_of(evaluation), most=1500)
    check(study, evaluation, backend)


# Failures.


@pytest.mark.parametrize("name", ["basic", "auto", "random"])
def test_failing_configurations_are_passed_over(name: str) -> None:
    backend = backend_of(damage_of(name))

    def fail(config: QuantConfig) -> None:
        if "op1" in config.fallback_ops and "op3" not in config.fallback_ops:
            raise RuntimeError("cannot be built")

    backend.before_build = fail
    evaluation = SampleScores(damage_of(name))
    study = study_of(name)
    objective = objective_of(evaluation, backend=backend)
    search(study, objective)
    assert evaluation.most_repeats == 1
    if name != "random":
        assert any(trial.state == TrialState.FAIL for trial in study.trials)


# Another criterion on the same study.


@pytest.mark.parametrize("name", ["basic", "auto", "exhaustive", "tpe"])
def test_a_moved_tolerance_judges_partial_trials_again(name: str) -> None:
    evaluation = SampleScores(damage_of(name))
    study = study_of(name)
    search(study, objective_of(evaluation))
    before = len(study.trials)
    looser = AccuracyCriterion(criterion="absolute", tolerable_loss=0.15)
    again = study_of(name, storage=study._storage, criterion=looser)
    assert not again.sampler.is_exhausted(again)
    search(again, objective_of(evaluation, criterion=looser), most=before + 200)
    assert evaluation.most_repeats == 1
    assert len(again.trials) > before
    # A search that begins with the looser one finds nothing better.
    fresh_evaluation = SampleScores(damage_of(name))
    fresh = study_of(name, criterion=looser)
    search(fresh, objective_of(fresh_evaluation, criterion=looser))
    found, expected = best_met_trial(again, looser), best_met_trial(fresh, looser)
    assert found is not None and expected is not None
    # Those that learn may stop one short of it.
    more = found.user_attrs[record.FALLBACK_OPS] - expected.user_attrs[record.FALLBACK_OPS]
    assert more <= (name in LEARNING)
    # And back: what was promised or met then may fail now.
    tighter = AccuracyCriterion(criterion="absolute", tolerable_loss=0.02)
    last = study_of(name, storage=study._storage, criterion=tighter)
    search(last, objective_of(evaluation, criterion=tighter), most=before + 400)
    assert evaluation.most_repeats == 1
    baseline = get_baseline(last)
    best = best_met_trial(last, tighter)
    assert baseline is not None
    assert best is None or tighter.meets(best.value or 0.0, baseline.value)


# What other strategies have left.


@pytest.mark.parametrize("name", ENUMERATING)
def test_partial_trials_of_a_race_are_completed_by_others(name: str) -> None:
    backend = FakeBackend({"op0": 0.01, "op1": 0.0, "op2": 0.0, "op3": 0.02, "op4": 0.2})
    evaluation = SampleScores(backend.damage)
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler_of("basic", backend),
    )
    search(study, objective_of(evaluation, backend=backend))
    space = backend.tuning_space()
    study.sampler = sampler_of(name, backend, fallback=True)
    search(study, objective_of(evaluation, backend=backend), most=400)
    assert evaluation.most_repeats == 1
    fp32 = evaluation.metric(space.fp32())
    complete = {claim(trial).key for trial in study.trials if trial.state == TrialState.COMPLETE}
    for index in range(space.count(fallback=True)):
        config = space.config_at(index, fallback=True)
        if CRITERION.meets(evaluation.metric(config), fp32):
            assert config.key in complete


# An evaluation without samples, and one in full.


@pytest.mark.parametrize("name", ANSWERING)
def test_without_samples_all_is_as_before(name: str) -> None:
    def searched(stopping: EarlyStopping | None, evaluate: Any) -> list[Any]:
        study = study_of(name)
        search(study, objective_of(evaluate, backend=backend_of(), stopping=stopping))
        return [(t.params, t.value, t.state, claim(t).stage) for t in study.trials]

    scores = SampleScores(DAMAGE)
    opaque = searched(STOPPING, lambda model: scores.metric(model.config))
    assert searched(None, scores) == opaque
    assert {state for _, _, state, _ in opaque} == {TrialState.COMPLETE}


@pytest.mark.parametrize("name", ANSWERING)
def test_early_stopping_is_no_reason_for_a_worse_answer(name: str) -> None:
    backend = backend_of()
    found = []
    for stopping in (STOPPING, None):
        study = study_of(name)
        search(study, objective_of(SampleScores(DAMAGE, samples=4000), stopping=stopping))
        best = best_met_trial(study, CRITERION)
        assert best is not None
        found.append(best.user_attrs[record.FALLBACK_OPS])
    assert found[0] <= found[1] + 1, backend


@pytest.mark.parametrize(("name", "trials"), [("basic", 8), ("auto", 3)])
def test_a_search_goes_on_in_full(name: str, trials: int) -> None:
    evaluation = SampleScores(DAMAGE)
    study = study_of(name)
    study.optimize(objective_of(evaluation), n_trials=trials)
    again = study_of(name, storage=study._storage)
    search(again, objective_of(evaluation, stopping=None))
    assert max(evaluation.calls.values()) == 1
    assert best_met_trial(again, CRITERION) is not None


# Several processes.


@pytest.mark.parametrize(
    ("name", "when_blocked", "kind"),
    [
        # A database takes several times as long as a journal, so it has fewer ops, and knows no
        # strategy.
        ("basic", "wait", "journal"),
        ("basic", "speculate", "journal"),
        ("conservative", "wait", "sqlite"),
        ("auto", None, "journal"),
        ("random", None, "journal"),
    ],
)
def test_four_processes_do_what_one_does(
    zygote: Zygote, tmp_path: Path, kind: str, name: str, when_blocked: str | None
) -> None:
    log = Log(tmp_path / "log")
    damage = FEW if kind == "sqlite" else damage_of(name)
    backend = backend_of(damage)
    with services.storage_url(kind, tmp_path) as url:
        workers = [
            zygote.start(
                "sample_models:work",
                url=url,
                log=str(log.path),
                name=name,
                when_blocked=when_blocked,
                damage=damage,
                seconds=0.002,
            )
            for _ in range(WORKERS)
        ]
        assert zygote.join(*workers) == [0] * WORKERS
        study = study_of(name, backend=backend, storage=services.open_storage(url))
        seen = Counter(
            (line["model"], index) for line in log.read("samples") for index in line["indices"]
        )
        assert max(seen.values()) == 1
        assert not any(trial.state == TrialState.FAIL for trial in study.trials)
        if damage == damage_of(name):
            alone = searched_alone(name)
        else:
            alone = study_of(name, backend=backend)
            search(alone, objective_of(SampleScores(damage)))
        found, expected = answers(study, backend), answers(alone, backend)
        if name in LEARNING:
            assert len(found) == len(expected)
        else:
            check_answers(name, found, expected)
        if when_blocked == "wait":
            ours = {
                entry
                for entry in asked(study)
                if entry[0] not in (record.SPARE_STAGE, record.EXHAUSTED_STAGE)
            }
            assert ours == set(asked(alone))
        assert isinstance(study.sampler, QuantSampler)
        assert study.sampler.is_exhausted(study)


def test_other_settings_of_a_continued_study_are_told(caplog: pytest.LogCaptureFixture) -> None:
    scores, backend = SampleScores(DAMAGE), backend_of(DAMAGE)
    study = optuna.create_study(direction="maximize", sampler=sampler_of("basic", backend))
    study.optimize(objective_of(scores, backend=backend), n_trials=2)
    other = EarlyStopping(error_probability=0.5)
    with caplog.at_level("WARNING", logger="optuna_quant"):
        study.optimize(objective_of(scores, backend=backend, stopping=other), n_trials=2)
    told = [
        entry.message for entry in caplog.records if "was started with the method" in entry.message
    ]
    assert len(told) == 1
    assert "'paired' and the error probability 0.001, which are kept" in told[0]


class FailsLate(SampleScores):
    """Fails on the last samples of every quantized model, which earlier looks do not reach."""

    def scores(self, model: FakeModel, indices: NDArray[np.intp]) -> Iterator[NDArray[np.float64]]:
        for number, some in enumerate(super().scores(model, indices)):
            if model.config.quantized_ops and len(indices) > 500 and number > 5:
                raise RuntimeError("late")
            yield some


@pytest.mark.parametrize("name", ANSWERING)
def test_what_fails_when_it_is_continued_is_abandoned(name: str) -> None:
    evaluation = FailsLate(dict.fromkeys(FEW, 0.0))
    study = study_of(name, backend=backend_of(FEW))
    search(study, objective_of(evaluation), most=500)
    failed = Counter(
        str(sorted(trial.params.items()))
        for trial in study.trials
        if trial.state == TrialState.FAIL
    )
    assert failed
    assert max(failed.values()) <= 3
    sampler = study.sampler
    assert isinstance(sampler, QuantSampler)
    assert sampler.is_exhausted(study)
    assert sampler.abandoned(study)
