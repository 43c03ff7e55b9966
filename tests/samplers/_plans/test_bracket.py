"""Fallback by doubling and halving: which prefixes are tried, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

from fake_backend import FakeBackend
import optuna
from optuna.trial import TrialState
import pytest
from sample_models import CRITERION
from sample_models import STOPPING
from sample_models import SampleScores
from sample_models import answers
from sample_models import sampler_of
from sample_models import search
from spaces import make_space

from optuna_quant.criteria import AccuracyCriterion
from optuna_quant.evaluation.objective import QuantObjective
from optuna_quant.samplers import BasicQuantSampler
from optuna_quant.samplers._engine.requests import Evaluation
from optuna_quant.samplers._engine.requests import Stage
from optuna_quant.samplers._plans.fallback import bracket
from optuna_quant.study import record
from optuna_quant.study.fidelity import FULL
from optuna_quant.study.trial_view import TrialView


def tried(count: int, meets: Callable[[int], bool]) -> tuple[list[int], int | None]:
    """The sizes of the prefixes that are tried, and of the one that is found."""
    space = make_space(count)
    plan = bracket("stage", space.default(), space.tunables)
    sizes: list[int] = []
    try:
        request = next(plan)
        while True:
            assert isinstance(request, Stage)
            assert request.provisional
            (config,) = request.configs
            size = len(config.fallback_ops)
            assert config.fallback_ops == tuple(t.name for t in space.tunables[:size])
            sizes.append(size)
            request = plan.send([Evaluation(config, 0.0, met=meets(size))])
    except StopIteration as end:
        if end.value is None:
            return sizes, None
        config, ops = end.value
        assert config.fallback_ops == tuple(t.name for t in ops)
        return sizes, len(ops)


@pytest.mark.parametrize(
    ("needed", "sizes"),
    [
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 2, 4, 3]),
        (4, [1, 2, 4, 3]),
        (5, [1, 2, 4, 8, 6, 5]),
        (7, [1, 2, 4, 8, 6, 7]),
        (8, [1, 2, 4, 8, 6, 7]),
        (9, [1, 2, 4, 8, 11, 9]),
        (10, [1, 2, 4, 8, 11, 9, 10]),
        (11, [1, 2, 4, 8, 11, 9, 10]),
    ],
)
def test_order_of_the_prefixes(needed: int, sizes: list[int]) -> None:
    assert tried(11, lambda size: size >= needed) == (sizes, needed)


def test_the_smallest_prefix_is_found_with_few_evaluations() -> None:
    for count in (1, 2, 3, 16, 17, 100):
        for needed in range(1, count + 1):
            sizes, found = tried(count, lambda size, needed=needed: size >= needed)
            assert found == needed
            assert len(set(sizes)) == len(sizes)
            assert len(sizes) <= 2 * math.log2(needed) + 2


def test_nothing_is_found_where_no_prefix_helps() -> None:
    assert tried(6, lambda size: False) == ([1, 2, 4, 6], None)


def test_what_is_not_monotone_still_gives_a_prefix_that_meets() -> None:
    # 3 to 5 meet, 6 to 8 do not, and from 9 on all do.
    for meets in ({3, 4, 5} | set(range(9, 17)), {1, 8}, {6}, {2, 16}, {16}, {12}):
        sizes, found = tried(16, meets.__contains__)
        assert found is None or found in meets
        assert found is None or found in sizes
        assert len(sizes) <= 8


# In a study. A number is the ops that have to be in fallback.

NEEDED = {f"op{i}": 0.06 if i in (1, 4, 6) else 0.005 for i in range(8)}


def searched(
    *, samples: bool = True, criterion: AccuracyCriterion = CRITERION, **options: Any
) -> tuple[optuna.Study, SampleScores]:
    backend = FakeBackend(NEEDED)
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler_of("basic", backend, criterion=criterion, **options),
    )
    evaluation = SampleScores(NEEDED, samples=2000)
    objective = QuantObjective(
        backend,
        backend.tuning_space(),
        evaluation,
        criterion,
        stopping=STOPPING if samples else None,
    )
    search(study, objective)
    return study, evaluation


def stages(study: optuna.Study) -> list[str]:
    claims = [TrialView(trial).claim for trial in study.trials]
    return [claim.stage for claim in claims if claim is not None]


def fallbacks(study: optuna.Study, stage: str) -> list[int]:
    found = {}
    for trial in study.trials:
        claim = TrialView(trial).claim
        if claim is not None and claim.stage == stage:
            found[claim.key] = trial.user_attrs[record.FALLBACK_OPS]
    return list(found.values())


def test_samples_bring_the_bracket() -> None:
    study, _ = searched()
    # The first may be known from the race that ranked the ops; all together are FP32.
    sizes = [size for size in fallbacks(study, "accumulated fallback") if size > 1]
    ways = [tried(8, lambda size, needed=needed: size >= needed)[0] for needed in range(3, 9)]
    assert sizes in [[size for size in way if 1 < size < 8] for way in ways]
    (answer,) = answers(study, FakeBackend(NEEDED))
    by_key = {TrialView(trial).claim.key: trial for trial in study.trials}  # type: ignore[union-attr]
    assert by_key[answer].user_attrs[record.FALLBACK_OPS] >= 3


@pytest.mark.parametrize("accumulate", ["walk", "bracket"])
@pytest.mark.parametrize("samples", [True, False])
def test_both_ways_find_an_answer(accumulate: str, samples: bool) -> None:
    study, evaluation = searched(samples=samples, accumulate=accumulate)
    assert answers(study, FakeBackend(NEEDED))
    if samples:
        assert not evaluation.calls
        assert evaluation.most_repeats == 1
    else:
        assert not evaluation.seen
        assert max(evaluation.calls.values()) == 1
        assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}


def test_walk_is_the_default_without_samples() -> None:
    plain, walk = searched(samples=False), searched(samples=False, accumulate="walk")
    assert [t.params for t in plain[0].trials] == [t.params for t in walk[0].trials]
    bracket = searched(samples=False, accumulate="bracket")
    assert [t.params for t in plain[0].trials] != [t.params for t in bracket[0].trials]


def test_order_of_neural_compressor_knows_no_race() -> None:
    with_samples, _ = searched(compat="inc2")
    without, _ = searched(samples=False, compat="inc2")
    claims = [TrialView(trial).claim for trial in with_samples.trials]
    assert {claim.fidelity for claim in claims if claim is not None} == {FULL}
    assert stages(with_samples)[:3] == stages(without)[:3]
    assert set(stages(with_samples)) == set(stages(without))


def test_bracket_needs_a_criterion() -> None:
    with pytest.raises(ValueError, match="needs criterion="):
        BasicQuantSampler(make_space(2), accumulate="bracket")
    with pytest.raises(ValueError, match="'walk' or 'bracket', but got 'both'"):
        BasicQuantSampler(make_space(2), accumulate="both")


def test_without_a_criterion_the_walk_is_taken() -> None:
    backend = FakeBackend(NEEDED)
    study = optuna.create_study(
        direction="maximize",
        sampler=BasicQuantSampler(backend.tuning_space()),
    )
    evaluation = SampleScores(NEEDED, samples=500)
    objective = QuantObjective(
        backend, backend.tuning_space(), evaluation, CRITERION, stopping=STOPPING
    )
    search(study, objective)
    assert evaluation.most_repeats == 1
    assert "accumulated fallback" in stages(study)
