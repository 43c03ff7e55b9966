"""Why an answer is as it is: from the record of searches in simulated models."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import optuna
import pytest
from samplers.simulated import CRITERION
from samplers.simulated import SimulatedModel
from samplers.simulated import searched
import services
from spaces import STATIC
from spaces import make_space

from optuna_quant.costs import CostTable
from optuna_quant.samplers import AutoQuantSampler
from optuna_quant.samplers import Explanation
from optuna_quant.samplers import FallbackOp
from optuna_quant.samplers import ParetoQuantSampler
from optuna_quant.samplers import SurrogateQuantSampler
from optuna_quant.samplers import study_prior
from optuna_quant.samplers._models.explanation_text import in_words
from optuna_quant.samplers._models.explanation_text import percent
from optuna_quant.samplers._models.explanation_text import probability
from optuna_quant.space.config import FP32
from optuna_quant.space.config import QuantConfig
from optuna_quant.study import record
from optuna_quant.study.baseline import Baseline
from optuna_quant.study.baseline import set_baseline


class Parts:
    """A sensitivity that knows what part weights have."""

    def __init__(self, model: SimulatedModel, of_weights: Mapping[str, float]) -> None:
        self._model = model
        self._of_weights = of_weights

    def __call__(self, config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
        raise AssertionError("all options are scored together")

    def score_with_weights(
        self, configs: Sequence[QuantConfig], ops: Sequence[str]
    ) -> tuple[list[dict[str, float]], dict[str, float]]:
        scores = [dict(self._model.sensitivity(config, ops)) for config in configs]
        return scores, dict(self._of_weights)

    def passes(self, configs: int, *, with_weights: bool = False) -> float:
        return configs + 0.5 * with_weights


def three_hard(of_weights: float | None = 0.05) -> tuple[SimulatedModel, SurrogateQuantSampler]:
    """A model of 16 ops, three of which lose too much, and its sampler; by the ops in fallback."""
    model = SimulatedModel(16, 3, noise=0.1, easy=0.001)
    parts = {} if of_weights is None else dict.fromkeys(model.losses, of_weights)
    return model, model.sampler(sensitivity=Parts(model, parts), costs=None)


@cache
def searched_three_hard(
    of_weights: float | None = 0.05,
) -> tuple[SimulatedModel, SurrogateQuantSampler, optuna.Study]:
    """The same, and a whole search; nothing may be added to it."""
    model, sampler = three_hard(of_weights)
    return model, sampler, searched(sampler, model.metric)


def hard_ops(model: SimulatedModel) -> set[str]:
    names = list(model.losses)
    return {names[i] for i in model.hard}


def explained(sampler: SurrogateQuantSampler, study: optuna.Study) -> Explanation:
    found = sampler.explain(study)
    assert found is not None
    return found


# What is in fallback.


@pytest.mark.parametrize(
    "of_weights, side",
    [(0.05, "activations"), (0.95, "weights"), (0.5, "activations and weights")],
)
def test_the_hard_ops_are_named_with_what_is_wrong_with_them(of_weights, side):
    model, sampler, study = searched_three_hard(of_weights)
    found = explained(sampler, study)
    assert found.met is True
    assert {each.op for each in found.fallback} == hard_ops(model)
    shares = [each.error.share for each in found.fallback if each.error is not None]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) > 0.9
    line = str(found).splitlines()[0]
    names = ", ".join(each.op for each in found.fallback)
    whole = 1.0 if side == "activations and weights" else 0.95
    assert line == (
        f"in fallback: {names}: their {side} cause {percent(whole * sum(shares))} of the error "
        "expected of plain INT8; they have no option with more than 8 bits"
    )


def test_without_the_parts_the_share_is_told():
    model, sampler = three_hard(None)
    found = explained(sampler, searched(sampler, model.metric))
    assert {each.error.activations for each in found.fallback if each.error} == {None}
    line = str(found).splitlines()[0]
    assert line.endswith("% of the error expected of plain INT8")
    assert "activations" not in line


def test_shares_are_those_of_everything_quantized():
    model, sampler, study = searched_three_hard()
    found = explained(sampler, study)
    assert set(found.errors) == set(model.losses)
    assert sum(error.share for error in found.errors.values()) == pytest.approx(1.0)
    assert {error.option for error in found.errors.values()} == {STATIC}
    assert max(found.errors.values(), key=lambda e: e.share).op in hard_ops(model)


def test_the_loss_of_an_op_alone_is_what_the_model_loses_by_it():
    model, sampler, study = searched_three_hard()
    found = explained(sampler, study)
    assert CRITERION.criterion == "absolute"
    for op, error in found.errors.items():
        alone = model.losses[op][STATIC.label]
        assert error.loss == pytest.approx(alone, rel=0.3 if op in hard_ops(model) else 1.5)


def test_what_the_trials_have_taught_counts():
    """By the sensitivities alone all ops are the same."""
    model = SimulatedModel(6, 1, easy=1e-4)
    equal = dict.fromkeys(model.losses, 0.02)
    sampler = model.sampler(sensitivity=lambda config, ops: {op: equal[op] for op in ops})
    study = searched(sampler, model.metric)
    (hard,) = hard_ops(model)
    found = explained(sampler, study)
    others = [error.share for op, error in found.errors.items() if op != hard]
    assert found.errors[hard].share > max(others)


def test_an_op_that_is_slower_quantized_is_not_blamed():
    model, _ = three_hard()
    easy = next(op for op in model.losses if op not in hard_ops(model))
    ops = {op: dict(costs) for op, costs in model.table.ops.items()}
    ops[easy][STATIC.label] = 2 * ops[easy][FP32.label]
    table = CostTable("latency", "s", ops)
    sampler = model.sampler(costs=table)
    found = explained(sampler, searched(sampler, model.metric))
    (slow,) = [each for each in found.fallback if each.op == easy]
    assert slow.in_cheapest
    assert slow.saving is not None
    assert slow.saving < 0
    said = f"in fallback: {easy}: the model would be no faster with it quantized"
    assert said in str(found).splitlines()


def test_an_op_that_may_not_be_quantized_is_not_explained_by_its_error():
    space = make_space(3, (STATIC, FP32))
    tunables = [*space.tunables[:2], replace(space.tunables[2], options=(FP32,))]
    space = replace(space, tunables=tuple(tunables))
    sampler = SurrogateQuantSampler(space, criterion=CRITERION, sensitivity=alike)
    study = searched(sampler, lambda config: 0.9)
    found = explained(sampler, study)
    assert [each.saving for each in found.fallback] == [None]
    assert str(found) == f"in fallback: {space.tunables[2].name}: nothing else is allowed"


def alike(config: QuantConfig, ops: Sequence[str]) -> Mapping[str, float]:
    return dict.fromkeys(ops, 0.01)


def test_of_many_ops_a_few_are_named():
    model = SimulatedModel(20, 9, noise=0.1, easy=0.001)
    sampler = model.sampler(costs=None)
    found = explained(sampler, searched(sampler, model.metric))
    assert len(found.fallback) >= 9
    first = str(found).splitlines()[0]
    names = ", ".join(each.op for each in found.fallback[:4])
    assert first.startswith(f"in fallback: {names} and {len(found.fallback) - 4} more: ")


def test_an_easy_model_needs_no_words():
    model = SimulatedModel(8, 0, easy=0.001)
    sampler = model.sampler(costs=None)
    found = explained(sampler, searched(sampler, model.metric))
    assert found.met is True
    assert found.fallback == ()
    assert str(found) == ""


# What was not tried.


def test_the_most_promising_of_what_was_not_tried_is_told():
    model, sampler, study = searched_three_hard()
    found = explained(sampler, study)
    assert found.stage is None
    assert found.untried is not None
    tried = {model.space.key_from_params(trial.params) for trial in study.trials}
    assert found.untried.config.key not in tried
    assert found.untried.cost == 1
    assert found.untried.probability < 0.03
    assert str(found).splitlines()[-1] == (
        "nothing with fewer ops in fallback is believed to meet the criterion (the next, 1 op in "
        "fallback instead of 3, with a probability of less than 3%)"
    )


def test_what_may_well_meet_and_is_not_worth_an_evaluation_is_told_with_its_probability():
    model, _ = three_hard()
    sampler = model.sampler(costs=None, min_gain=10.0)
    study = searched(sampler, model.metric)
    found = explained(sampler, study)
    assert found.stage is None
    assert found.untried is not None
    ops, answer = len(found.untried.config.fallback_ops), len(found.fallback)
    assert str(found).splitlines()[-1] == (
        f"not worth a trial: {ops} ops in fallback instead of {answer}, though believed to meet "
        f"the criterion with a probability of {probability(found.untried.probability, None)}"
    )


def test_a_thorough_search_is_not_told_to_search_longer():
    """It has concluded: of its answer, and of what costs more and was measured to be better."""
    model, _ = three_hard()
    sampler = model.sampler(thorough=True)
    study = searched(sampler, model.metric)
    best = sampler.explain(study)
    assert best is not None and best.config is not None and best.stage is None
    measured = best.config.with_fallback(best.config.quantized_ops[0])
    for config in (None, measured):
        found = sampler.explain(study, config)
        assert found is not None
        assert found.untried is None or not found.untried.is_promising
        assert found.untried is None or found.untried.cost < best.cost
        assert "timeout" not in str(found)


def test_ops_that_hardly_save_anything_are_told_apart_from_those_that_save_nothing():
    _, sampler, study = searched_three_hard()
    found = explained(sampler, study)
    ops = [
        FallbackOp("a", None, 0.0, in_cheapest=True),
        FallbackOp("b", None, 0.001, in_cheapest=True),
    ]
    told = in_words(
        replace(found, fallback=tuple(ops)), criterion=CRITERION, measure="latency", show=str
    ).splitlines()
    assert "in fallback: a: the model would be no faster with it quantized" in told
    assert "in fallback: b: the model would be hardly faster with it quantized" in told


def test_it_would_be_tried_next():
    """What is told of a search on its way is what it does then."""
    model = SimulatedModel(16, 3)
    sampler = model.sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=2)
    for _ in range(2):
        found = sampler.explain(study)
        believed = {belief.config.key: belief for belief in sampler.beliefs(study)}
        if found is not None and found.untried is not None and not found.met:
            belief = believed[found.untried.config.key]
            assert belief.probability == found.untried.probability
            assert belief.improvement == max(each.improvement for each in believed.values())
        study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=1)


@pytest.mark.parametrize(
    "part, shown",
    [
        (0.0, "less than 1%"),
        (0.03, "3%"),
        (0.834, "83%"),
        (0.996, "more than 99%"),
        (1.0, "100%"),
    ],
)
def test_a_part_is_told_in_percent(part, shown):
    assert percent(part) == shown


@pytest.mark.parametrize(
    "value, samples, shown",
    [
        (0.0, None, "less than 3%"),
        (0.0, 1000, "less than 3%"),
        (0.04, 1000, "about 4%"),
        (0.04, 99, "less than 10%"),
        (0.33, 99, "about 35%"),
        (0.5, None, "about 50%"),
        (0.98, None, "more than 97%"),
        (0.95, 99, "more than 90%"),
    ],
)
def test_a_probability_is_told_as_coarsely_as_it_is_known(value, samples, shown):
    assert probability(value, samples) == shown


def test_an_op_that_may_do_quantized_is_not_blamed():
    """The model of the loss believes that it may, and the search was ended before it was tried."""
    model, sampler, study = searched_three_hard()
    answer = sampler.explain(study)
    assert answer is not None and answer.config is not None
    easy = next(op for op in answer.config.quantized_ops if op not in hard_ops(model))
    found = sampler.explain(study, answer.config.with_fallback(easy))
    assert found is not None
    likely = {each.op: each.probability for each in found.fallback}
    assert likely.pop(easy) > 0.9
    assert all(value is not None and value < 0.5 for value in likely.values())
    assert (
        f"in fallback: {easy}: the model probably meets the criterion with it quantized"
        in str(found).splitlines()
    )


# A search that has not ended by itself.


def test_before_the_floats_are_known_there_is_nothing_to_say():
    _, sampler = three_hard()
    assert sampler.explain(optuna.create_study(direction="maximize", sampler=sampler)) is None


def ended_after(trials: int) -> Explanation:
    model = SimulatedModel(30, 6, noise=2.5, seed=3)
    sampler = model.sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=trials)
    found = explained(sampler, study)
    assert found.met is False
    assert found.stage is not None
    return found


def test_an_early_end_is_told():
    assert str(ended_after(1)) == (
        "ended before a quantized model was evaluated: nothing is known about the others"
    )
    assert str(ended_after(2)) == (
        "ended while looking for a model that meets the criterion: nothing is known about what "
        "was "
        "not tried"
    )
    found = ended_after(3)
    assert found.untried is not None
    ops = len(found.untried.config.quantized_ops)
    assert str(found).splitlines()[0] == (
        f"ended while looking for a model that meets the criterion; the next to try ({ops} of 30 "
        "ops quantized) is believed to meet it with a probability of "
        f"{probability(found.untried.probability, None)}"
    )


def test_an_early_end_with_an_answer_tells_what_else_there_may_be():
    model = SimulatedModel(50, 3, seed=1)
    sampler = model.sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    found = None
    while not sampler.is_exhausted(study):
        study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=1)
        found = sampler.explain(study)
        if found is not None and found.met and found.stage is not None:
            break
    assert found is not None
    assert found.untried is not None
    last = str(found).splitlines()[-1]
    assert last.startswith("ended while looking for a faster model; the next to try (")
    assert f" instead of {found.cost:.3g} s) is believed to meet the criterion with" in last
    assert found.untried.cost < found.cost


def test_a_limit_cuts_a_search_short_that_has_an_answer():
    """It would have gone on for a better one; one that ends with its answer has no such wish."""
    model = SimulatedModel(110, 4, seed=1)
    sampler = model.sampler()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(lambda trial: model.metric(model.space.suggest(trial)), n_trials=4)
    assert not sampler.is_exhausted(study)
    assert explained(sampler, study).stage is None
    study.set_user_attr(record.STOPPED_BECAUSE, {"reason": "met"})
    assert str(explained(sampler, study)).splitlines()[-1].startswith("not tried: ")
    study.set_user_attr(record.STOPPED_BECAUSE, {"reason": "timeout"})
    said = str(explained(sampler, study)).splitlines()[-1]
    assert said.startswith("ended while looking for a faster model; the next to try (")


def test_an_end_before_the_answer_was_seen_whole_is_told():
    found = replace(ended_after(3), stage="answer")
    said = in_words(found, criterion=CRITERION, measure="latency", show=str)
    assert said == "ended before what looks best was evaluated on all samples"


# Where nothing meets.


def test_what_may_meet_still_is_told_where_nothing_does():
    found = replace(ended_after(3), stage=None)
    assert found.untried is not None
    ops = len(found.untried.config.quantized_ops)
    said = in_words(found, criterion=CRITERION, measure="latency", show=str)
    assert said == (
        f"not tried: {ops} of 30 ops quantized, believed to meet the criterion with a probability "
        f"of {probability(found.untried.probability, None)}; timeout=None (--timeout none) would "
        "try it"
    )


def test_what_stands_in_the_way_is_named():
    """Three ops lose too much, and there is no other way to run them."""
    model = SimulatedModel(10, 3, noise=0.1, easy=0.001)
    hard = hard_ops(model)
    space = make_space(10, (STATIC, FP32))
    tunables = [replace(t, options=(STATIC,)) if t.name in hard else t for t in space.tunables]
    space = replace(space, tunables=tuple(tunables))
    parts = Parts(model, dict.fromkeys(model.losses, 0.1))
    sampler = SurrogateQuantSampler(space, criterion=CRITERION, sensitivity=parts)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    set_baseline(study, Baseline(model.baseline))
    searched(sampler, model.metric, study=study)
    found = explained(sampler, study)
    assert found.met is False
    assert found.stage is None
    least = found.least_loss
    assert least is not None
    assert set(least.config.quantized_ops) == hard
    assert least.loss == pytest.approx(model.loss(least.config), rel=0.3)
    assert {error.op for error in least.in_the_way} <= hard
    # With these there is no model in which another one is quantized alone.
    assert {error.loss for error in found.errors.values()} == {None}
    said = str(found).splitlines()
    assert said[-2] == (
        f"even with all but 3 ops in fallback a loss of about {CRITERION.show(least.loss)} is "
        "expected"
    )
    assert said[-1].startswith("in the way: the activations of ")


# From the record.


def test_another_process_says_the_same_without_the_model(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/study.db"
    model, sampler = three_hard()
    study = optuna.create_study(
        storage=services.open_storage(storage),
        study_name="s",
        direction="maximize",
        sampler=sampler,
    )
    searched(sampler, model.metric, study=study)
    found = explained(sampler, study)
    opened = optuna.load_study(storage=services.open_storage(storage), study_name="s")
    without = SurrogateQuantSampler(model.space, criterion=CRITERION)
    assert without.explain(opened) == found


def test_a_study_started_from_another_knows_the_parts():
    model, _ = three_hard()
    earlier = searched(
        model.sampler(costs=None, sensitivity=Parts(model, {"op0": 1.0})), model.metric
    )
    prior = study_prior(earlier, same_model=True, same_evaluation=True)
    again = model.sampler(costs=None, sensitivity=None, prior=prior)
    found = explained(again, searched(again, model.metric))
    assert found.errors["op0"].activations == 0.0
    assert {e.activations for op, e in found.errors.items() if op != "op0"} == {None}


def test_strategies_without_an_answer_of_a_model_explain_nothing():
    model = SimulatedModel(6, 1)
    front = ParetoQuantSampler(model.space, criterion=CRITERION, sensitivity=model.sensitivity)
    study = searched(front, model.metric)
    assert front.explain(study) is None
    old = AutoQuantSampler(model.space, criterion=CRITERION, compat="inc2")
    assert old.explain(searched(old, model.metric)) is None
