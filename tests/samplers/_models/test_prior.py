"""What a search takes from an earlier study: read from its record, kept in the new one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from fake_backend import FakeBackend
import numpy as np
import optuna
import pytest
from spaces import STATIC
from spaces import STATIC_TENSOR
from spaces import make_space

from optuna_quant import AccuracyCriterion
from optuna_quant import _optuna
from optuna_quant.callbacks import ExitPolicy
from optuna_quant.costs.known import fallback_table
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import StudyPrior
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.samplers import study_prior
from optuna_quant.samplers._models.prior import EarlierLoss
from optuna_quant.samplers._models.prior import kept_prior
from optuna_quant.samplers._models.prior_in_space import PriorInSpace
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.study.recorded_space import recorded_space
from optuna_quant.study.trial_view import TrialView


CRITERION = AccuracyCriterion()
DAMAGE = dict.fromkeys((f"op{i}" for i in range(14)), 0.0005) | {"op3": 0.02, "op9": 0.03}


class Scores:
    """A sensitivity that knows the order of ops roughly, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, config: Any, ops: Any) -> dict[str, float]:
        self.calls += 1
        noise = np.random.default_rng(0).lognormal(0.0, 1.0, 20)
        factors = {f"op{i}": factor for i, factor in enumerate(noise)}
        return {op: DAMAGE.get(op, 0.0005) * factors.get(op, 1.0) for op in ops}


def search(
    damage: Mapping[str, float] = DAMAGE,
    prior: StudyPrior | None = None,
    *,
    criterion: AccuracyCriterion = CRITERION,
    study: optuna.Study | None = None,
    sensitivity: Scores | None = None,
    backend: FakeBackend | None = None,
    **kwargs: Any,
) -> optuna.Study:
    """A study that was searched until its first answer."""
    backend = FakeBackend(damage, **kwargs) if backend is None else backend
    space = backend.tuning_space()
    sampler = SurrogateQuantSampler(
        space,
        criterion=criterion,
        prior=prior,
        sensitivity=Scores() if sensitivity is None else sensitivity,
    )
    if study is None:
        study = optuna.create_study(direction="maximize", sampler=sampler)
    study.sampler = sampler
    objective = QuantObjective(backend, space, lambda model: model.accuracy, criterion)
    study.optimize(objective, n_trials=40, callbacks=[ExitPolicy(criterion)])
    return study


@cache
def earlier() -> optuna.Study:
    """A study to start others from; nothing may be added to it."""
    return search()


def stages(study: optuna.Study) -> list[str]:
    claims = [TrialView(trial).claim for trial in study.trials]
    return [claim.stage for claim in claims if claim is not None]


def best(study: optuna.Study) -> int:
    """The fewest ops in fallback of what meets the criterion."""
    return min(t.user_attrs["fallback_ops"] for t in study.trials if t.user_attrs.get("met"))


def test_unchanged_model_takes_two_evaluations_and_gives_the_same_answer() -> None:
    cold = earlier()
    assert len(cold.trials) > 3
    warm = search(prior=study_prior(cold, same_model=True, same_evaluation=True))
    assert stages(warm) == ["baseline", "earlier answer"]
    (answer,) = [t.params for t in cold.trials if t.user_attrs["fallback_ops"] == best(cold)]
    assert warm.trials[-1].params == answer


class ByWeights(FakeBackend):
    """An op loses what it does with a scale for each tensor of weights, and less with more."""

    def accuracy(self, config: QuantConfig) -> float:
        coarse = [op for op in config.quantized_ops if config.ops[op] == STATIC_TENSOR]
        return round(self.fp32 - sum(self.damage[op] for op in coarse), 10)


@pytest.mark.parametrize("is_same", [True, False])
def test_with_more_options_the_cheapest_of_all_is_tried(is_same: bool) -> None:
    """What the earlier study could not choose is not what it has concluded about."""
    cold = search(backend=ByWeights(DAMAGE, options=(STATIC_TENSOR, FP32)))
    assert best(cold) == 2
    wider = ByWeights(DAMAGE, options=(STATIC, STATIC_TENSOR, FP32))
    fresh = search(backend=wider)
    assert (stages(fresh), best(fresh)) == (["baseline", "cheapest to start with"], 0)
    prior = study_prior(cold, same_model=is_same, same_evaluation=is_same)
    warm = search(prior=prior, backend=wider)
    assert stages(warm)[:2] == ["baseline", "earlier answer"]
    assert best(warm) == 0
    assert len(warm.trials) <= len(fresh.trials) + 2
    sampler = warm.sampler
    assert isinstance(sampler, SurrogateQuantSampler)
    explanation = sampler.explain(warm)
    assert explanation is not None
    assert (explanation.cost, explanation.fallback, str(explanation)) == (0, (), "")


def test_the_cheapest_of_all_is_not_tried_where_it_was_seen() -> None:
    prior = study_prior(earlier(), same_model=True, same_evaluation=False)
    assert "cheapest to start with" not in stages(search(prior=prior))


def test_earlier_study_is_only_read() -> None:
    cold = earlier()
    before = dict(_optuna.study_system_attrs(cold)), dict(cold.user_attrs), cold.trials
    prior = study_prior(cold)
    search(prior=prior)
    assert (dict(_optuna.study_system_attrs(cold)), dict(cold.user_attrs), cold.trials) == before


def test_prior_is_kept_and_is_the_same_when_read_again() -> None:
    prior = study_prior(earlier(), same_model=True)
    assert prior.losses
    assert StudyPrior.loads(prior.dumps()) == StudyPrior.loads(prior.dumps())
    assert StudyPrior.loads(prior.dumps()).dumps() == prior.dumps()
    warm = search(prior=prior)
    kept = kept_prior(warm)
    assert kept is not None
    assert kept.dumps() == prior.dumps()


def test_goes_on_from_what_the_study_keeps_without_being_given_it() -> None:
    prior = study_prior(earlier())
    harder = {op: 6.0 * lost for op, lost in DAMAGE.items()}
    whole = search(harder, prior)
    assert len(whole.trials) > 3
    same = optuna.create_study(direction="maximize")
    backend = FakeBackend(harder)
    space = backend.tuning_space()
    for given in (prior, None, None):
        same.sampler = SurrogateQuantSampler(
            space, criterion=CRITERION, prior=given, sensitivity=Scores()
        )
        objective = QuantObjective(backend, space, lambda model: model.accuracy, CRITERION)
        same.optimize(objective, n_trials=1)
    search(harder, study=same)
    assert [trial.params for trial in same.trials] == [trial.params for trial in whole.trials]


def test_search_goes_on_with_the_prior_where_the_earlier_answer_fails() -> None:
    cold = earlier()
    harder = {op: 1.6 * lost for op, lost in DAMAGE.items()}
    warm = search(harder, study_prior(cold))
    assert stages(warm)[1] == "earlier answer"
    assert not warm.trials[1].user_attrs["met"]
    assert best(warm) <= best(search(harder))
    assert len(warm.trials) <= len(search(harder).trials)


def test_looks_for_cheaper_ones_where_more_is_allowed_now() -> None:
    cold = earlier()
    looser = AccuracyCriterion(tolerable_loss=0.05)
    warm = search(prior=study_prior(cold, same_model=True, same_evaluation=True), criterion=looser)
    assert "earlier answer" not in stages(warm)
    assert best(warm) <= best(search(criterion=looser))


def test_what_has_failed_is_not_tried_again() -> None:
    cold = earlier()
    failed = [t.params for t in cold.trials if t.user_attrs.get("met") is False]
    assert failed
    prior = study_prior(cold, same_model=True, same_evaluation=True)
    warm = search(prior=replace(prior, answer=None, is_concluded=False))
    assert not [trial for trial in warm.trials if trial.params in failed]
    assert any(trial.user_attrs["met"] for trial in warm.trials[1:])


def test_op_that_the_earlier_model_did_not_have_counts_as_one_in_floats() -> None:
    prior = study_prior(earlier())
    longer = {**DAMAGE, "new": 0.0005}
    warm = search(longer, prior)
    assert prior.shown(recorded_space(warm)).startswith("started from study 'no-name-")
    assert ": 14 of 15 ops in common, " in prior.shown(recorded_space(warm))
    assert len(warm.trials) <= len(search(longer).trials)
    assert best(warm) <= best(search(longer))


def test_losses_of_models_with_other_ops_teach_factors_only() -> None:
    prior = study_prior(earlier())
    space = FakeBackend({op: lost for op, lost in DAMAGE.items() if op != "op5"}).tuning_space()
    held = PriorInSpace(replace(prior, losses=prior.losses[:1]), space, CRITERION, table(space))
    assert "op5" in prior.losses[0].options
    assert held.observed(baseline=0.9, tolerance=0.009, without=()) == []
    assert prior.scale is not None
    assert held.scale(0.9) == pytest.approx(prior.scale)
    factors = held.factors(0.9)[:, 0]
    names = [tunable.name for tunable in space.tunables]
    assert set(sorted(names, key=lambda op: -factors[names.index(op)])[:2]) == {"op3", "op9"}


def table(space: Any) -> Any:
    return fallback_table(space)


def test_losses_in_other_units_are_not_compared() -> None:
    prior = study_prior(earlier())
    space = FakeBackend(DAMAGE).tuning_space()
    held = PriorInSpace(prior, space, CRITERION, table(space))
    assert held.observed(baseline=0.88, tolerance=0.009, without=())
    assert held.observed(baseline=0.3, tolerance=0.009, without=()) == []
    assert held.scale(0.3) is None
    other = PriorInSpace(replace(prior, same_metric=False), space, CRITERION, table(space))
    assert other.observed(baseline=0.9, tolerance=0.009, without=()) == []


@pytest.mark.parametrize(
    ("known", "same"),
    [
        ({"same_model": True, "same_evaluation": True}, 0.0),
        ({"same_model": True}, 0.1),
        ({}, 0.2),
    ],
)
def test_what_was_seen_of_another_model_is_less_certain(
    known: dict[str, bool], same: float
) -> None:
    prior = study_prior(earlier(), **known)
    space = FakeBackend(DAMAGE).tuning_space()
    held = PriorInSpace(prior, space, CRITERION, table(space))
    found = held.observed(baseline=0.9, tolerance=1.0, without=())
    assert len(found) == len(prior.losses)
    assert min(each.error for each in found) == pytest.approx(same, abs=0.02)


def test_what_was_evaluated_here_replaces_what_was_seen_there() -> None:
    prior = study_prior(earlier())
    space = FakeBackend(DAMAGE).tuning_space()
    held = PriorInSpace(prior, space, CRITERION, table(space))
    without = {space.default().key}
    before = held.observed(baseline=0.9, tolerance=0.009, without=())
    assert len(held.observed(baseline=0.9, tolerance=0.009, without=without)) == len(before) - 1


def test_third_study_has_what_the_first_has_taught() -> None:
    first = earlier()
    second = search(prior=study_prior(first, same_model=True, same_evaluation=True))
    assert len(second.trials) == 2
    third = study_prior(second)
    assert len(third.losses) == len(study_prior(first).losses)


def test_sensitivities_are_taken_over_for_the_same_model_and_not_for_another() -> None:
    first = search(sensitivity=Scores())
    for known, calls in ((True, 0), (False, 1)):
        scores = Scores()
        search(prior=study_prior(first, same_model=known), sensitivity=scores)
        assert scores.calls == calls
    # Where nothing scores the ops, those of the earlier model are better than none.
    prior = study_prior(first)
    space = FakeBackend(DAMAGE).tuning_space()
    held = PriorInSpace(prior, space, CRITERION, table(space)).scores
    assert held is not None
    computed = Scores()(space.default(), list(DAMAGE))
    assert {op: max(labels.values()) for op, labels in held.scores.items()} == computed


def test_recorded_space_is_the_one_that_was_searched() -> None:
    backend = FakeBackend({"b": 0.0, "a": 0.001, "c": 0.0}, options=(STATIC_TENSOR, FP32))
    space = backend.tuning_space().group({"pair": ["a", "c"]})
    study = optuna.create_study(
        direction="maximize", sampler=SurrogateQuantSampler(space, criterion=CRITERION)
    )
    study.optimize(
        QuantObjective(backend, space, lambda model: model.accuracy, CRITERION), n_trials=2
    )
    found = recorded_space(study)
    assert found.describe() == space.describe()
    assert {t.name: (t.op_type, t.ops) for t in found.tunables} == {
        t.name: (t.op_type, t.ops) for t in space.tunables
    }


# Errors.


def test_other_op_types_under_the_same_names() -> None:
    prior = study_prior(earlier())
    space = make_space([("op0", "Conv"), ("op3", "Gemm")])
    with pytest.raises(ValueError, match="the op 'op3' is a Conv there and a Gemm here"):
        SurrogateQuantSampler(space, criterion=CRITERION, prior=prior)


def test_no_op_in_common() -> None:
    prior = study_prior(earlier())
    with pytest.raises(ValueError, match=r"no op is in common \(it has 'op0'.*there are 'x'"):
        SurrogateQuantSampler(make_space([("x", "Conv")]), criterion=CRITERION, prior=prior)
    other = make_space([("op0", "Conv")], options=(STATIC_TENSOR, FP32))
    with pytest.raises(ValueError, match="its ops have no option in common"):
        SurrogateQuantSampler(other, criterion=CRITERION, prior=prior)


def test_study_of_something_else() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(ValueError, match="was not made by optuna_quant"):
        study_prior(study)
    several = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(ValueError, match="has 2 objectives"):
        study_prior(several)


def test_study_without_results() -> None:
    study = optuna.create_study(direction="maximize")
    sampler = SurrogateQuantSampler(make_space(3), criterion=CRITERION)
    study.sampler = sampler
    study.ask()
    with pytest.raises(ValueError, match="has no trials with a result"):
        study_prior(study)


def test_study_with_results_begins_from_nothing_else() -> None:
    first, second = earlier(), search()
    prior = study_prior(first)
    with pytest.raises(ValueError, match="has trials already and was not started from the study"):
        search(prior=prior, study=second)
    warm = search(prior=prior)
    with pytest.raises(ValueError, match=f"was started from the study '{first.study_name}', not"):
        search(prior=study_prior(second), study=warm)


def test_something_that_is_no_prior() -> None:
    space = make_space(3)
    with pytest.raises(TypeError, match=r"prior must be what study_prior\(study\) gives"):
        SurrogateQuantSampler(space, criterion=CRITERION, prior=earlier())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot use an earlier study"):
        AutoQuantSampler(
            FakeBackend(DAMAGE).tuning_space(),
            criterion=CRITERION,
            compat="inc2",
            prior=study_prior(earlier()),
        )


def test_losses_are_kept_exactly() -> None:
    losses = (EarlierLoss({"a": "x", "b": "y"}, 0.1, 0.2, 0.3, failed=True), EarlierLoss({}, 0.0))
    prior = StudyPrior(
        study="s", trials=1, op_types={"a": "", "b": ""}, options={"a": ("x",), "b": ("y",)},
        losses=losses,
    )  # fmt: skip
    assert StudyPrior.loads(prior.dumps()).losses == losses
